"""The grouped product on Triton against the reference, forward and backward."""

import pytest
import torch

from kernels import grouped_mm
from kernels.testing import DEVICE, assert_close, poisoned_empty

CASES = [
    # counts, I, O, dtype                      why this one
    ([1], 1, 1, torch.float32),  # one of everything
    ([0, 5, 0, 0, 20, 3], 7, 9, torch.float32),  # experts without rows, first and between; odd widths
    ([0, 0, 40], 33, 70, torch.float32),  # all rows to the last; more than one block each way
    ([150, 0], 16, 16, torch.float32),  # several blocks of rows of one expert
    ([3, 2, 0], 16, 130, torch.bfloat16),  # low precision in, float32 inside
    ([0, 0], 4, 4, torch.float32),  # no rows at all
]


def _tensors(counts, i, o, dtype):
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(sum(counts), i, generator=gen).to(DEVICE, dtype).requires_grad_()
    w = torch.randn(len(counts), i, o, generator=gen).to(DEVICE, dtype).requires_grad_()
    dy = torch.randn(sum(counts), o, generator=gen).to(DEVICE, dtype)
    return x, w, dy, torch.tensor(counts, device=DEVICE)


@pytest.mark.parametrize(("counts", "i", "o", "dtype"), CASES)
def test_grouped_mm_matches_the_reference_forward_and_backward(counts, i, o, dtype):
    x, w, dy, counts = _tensors(counts, i, o, dtype)
    expected = grouped_mm(x, w, counts, backend="reference")
    expected_grads = torch.autograd.grad(expected, (x, w), dy)
    with poisoned_empty():
        actual = grouped_mm(x, w, counts, backend="triton")
        actual_grads = torch.autograd.grad(actual, (x, w), dy)
    rel = 2e-6 if dtype is torch.float32 else 5e-3  # a rounding of the result, in bfloat16
    assert_close("y", expected, actual, rel=rel)
    for name, want, got in zip(("dx", "dw"), expected_grads, actual_grads, strict=True):
        assert_close(name, want, got, rel=rel)


def test_transposed_weights_and_expanded_gradients_are_read_in_place():
    x, w, _, counts = _tensors([4, 0, 9], 6, 10, torch.float32)
    w = w.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    x = x.detach().t().contiguous().t().requires_grad_()
    grads = [torch.autograd.grad(grouped_mm(x, w, counts, backend=b).sum(), (x, w)) for b in ("reference", "triton")]
    for name, want, got in zip(("dx", "dw"), *grads, strict=True):
        assert_close(name, want, got, rel=2e-6)
