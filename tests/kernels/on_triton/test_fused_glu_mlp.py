"""The gated MLP over groups on Triton against the reference, forward and backward."""

import pytest
import torch

from kernels import fused_glu_mlp
from kernels.fused_glu_mlp import ACTIVATIONS
from kernels.testing import DEVICE, assert_close, poisoned_empty

CASES = [
    # counts, I, H, O, dtype                    why this one
    ([1], 1, 1, 1, torch.float32),  # one of everything
    ([0, 5, 0, 19], 7, 70, 9, torch.float32),  # experts without rows, odd widths, two blocks of hidden channels
    ([0, 30], 33, 8, 5, torch.float32),  # all rows to one expert
    ([6, 3], 8, 24, 16, torch.bfloat16),  # low precision in, float32 inside
]
NAMES = ("x", "w_gate", "w_up", "w_down")


def _tensors(counts, i, h, o, dtype):
    gen = torch.Generator().manual_seed(0)
    e, m = len(counts), sum(counts)
    shapes = ((m, i), (e, i, h), (e, i, h), (e, h, o))
    inputs = [torch.randn(*shape, generator=gen).to(DEVICE, dtype).requires_grad_() for shape in shapes]
    return inputs, torch.tensor(counts, device=DEVICE), torch.randn(m, o, generator=gen).to(DEVICE, dtype)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("counts", "i", "h", "o", "dtype"), CASES)
def test_fused_glu_mlp_matches_the_reference_forward_and_backward(counts, i, h, o, dtype, activation):
    inputs, counts, dy = _tensors(counts, i, h, o, dtype)
    expected = fused_glu_mlp(*inputs, counts, activation, backend="reference")
    expected_grads = torch.autograd.grad(expected, inputs, dy)
    with poisoned_empty():
        actual = fused_glu_mlp(*inputs, counts, activation, backend="triton")
        actual_grads = torch.autograd.grad(actual, inputs, dy)
    # bfloat16: the reference rounds after every operation, the kernel after the last
    rel = 5e-6 if dtype is torch.float32 else 1.5e-2
    assert_close("y", expected, actual, rel=rel)
    for name, want, got in zip(NAMES, expected_grads, actual_grads, strict=True):
        assert_close(f"d{name}", want, got, rel=rel)


def test_without_gradients_the_result_is_the_same():
    inputs, counts, _ = _tensors([2, 0, 7], 5, 9, 6, torch.float32)
    with_grad = fused_glu_mlp(*inputs, counts, backend="triton")
    with torch.no_grad():
        assert torch.equal(fused_glu_mlp(*inputs, counts, backend="triton"), with_grad)
