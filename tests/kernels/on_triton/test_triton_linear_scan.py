"""linear_scan in Triton against its reference: the states and every gradient."""

import pytest
import torch

from kernels import linear_scan
from kernels.testing import DEVICE, assert_close, poisoned_empty

CASES = [
    # B, T,   D,   h0,    reverse, dtype,            why this one
    (1, 1, 1, False, False, torch.float32),  # no previous step at all
    (2, 17, 40, True, False, torch.float32),  # one chunk that is not full, nothing a power of two
    (1, 131, 130, True, True, torch.float32),  # three chunks, two blocks of channels, backwards in time
    (2, 70, 9, True, False, torch.bfloat16),  # low precision in, float32 inside
    (1, 67, 5, True, False, torch.complex64),
    (1, 67, 5, False, True, torch.complex64),
]
# float32: sums of the same terms in another order; bfloat16: outputs of 8 bits, and their states enter the gradient
TOLERANCE = {torch.float32: 1e-5, torch.complex64: 1e-5, torch.bfloat16: 1e-2}


@pytest.mark.parametrize(("B", "T", "D", "with_h0", "reverse", "dtype"), CASES)
def test_states_and_gradients_agree_with_the_reference(B, T, D, with_h0, reverse, dtype):
    gen = torch.Generator().manual_seed(0)

    def random(*shape):
        kind = dtype if dtype.is_complex else torch.float32
        return torch.randn(*shape, generator=gen, dtype=kind).to(dtype).to(DEVICE)

    a = random(B, T, D)
    a = (a / (1 + a.abs())).clone()
    a[:, ::7] = 0
    a[:, 3::7] = 1
    inputs = [a.requires_grad_(), random(B, T, D).requires_grad_()]
    inputs += [random(B, D).requires_grad_()] if with_h0 else []
    dy = random(B, T, D)

    wide = [i.detach().to(torch.promote_types(dtype, torch.float32)).requires_grad_() for i in inputs]
    expected = linear_scan(*wide, reverse=reverse, backend="reference")
    expected_grads = torch.autograd.grad(expected, wide, dy.to(expected.dtype))
    with poisoned_empty():
        actual = linear_scan(*inputs, reverse=reverse, backend="triton")
        actual_grads = torch.autograd.grad(actual, inputs, dy)

    assert actual.dtype is dtype
    assert_close("h", expected, actual, rel=TOLERANCE[dtype])
    for name, e, g in zip(("da", "dx", "dh0"), expected_grads, actual_grads, strict=False):
        assert_close(name, e, g, rel=TOLERANCE[dtype])


def test_rows_that_are_not_next_to_each_other_are_read_by_their_strides():
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 11, 7, generator=gen).to(DEVICE)[:, 1].transpose(0, 1).transpose(0, 1)
    a = torch.rand(1, 1, 7, generator=gen).to(DEVICE).expand(2, 11, 7)
    assert_close("h", linear_scan(a, x, backend="reference"), linear_scan(a, x, backend="triton"), rel=1e-5)
