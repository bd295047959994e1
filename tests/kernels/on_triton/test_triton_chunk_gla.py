"""chunk_gla in Triton against its reference: outputs, last state and every gradient."""

import pytest
import torch

from kernels import chunk_gla
from kernels.testing import DEVICE, assert_close, poisoned_empty

CASES = [
    # B, T,  H, K,  V, chunk, h0,   dtype,          why this one
    (1, 1, 1, 3, 5, 16, False, torch.float32),  # one step, blocks mostly masked
    (2, 37, 3, 20, 9, 16, True, torch.float32),  # three chunks, the last not full
    (1, 67, 1, 35, 34, 64, True, torch.float32),  # sub-chunks, two blocks of keys and of values
    (1, 40, 2, 16, 16, 32, True, torch.bfloat16),  # low precision in, float32 inside
]
# float32: running sums of log decays lose some 1e-7 of their size, here up to a few hundred; bfloat16: 8-bit outputs
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2}


def decays(gen, *shape):
    """Mild, strong and vanishing decays side by side: e^0, e^-50 and 0."""
    g = -torch.rand(*shape, generator=gen)
    g[:, ::9] = -50
    g[:, 3::7] = 0
    g[:, 4::11, :, ::2] = -torch.inf
    return g.to(DEVICE)


@pytest.mark.parametrize(("B", "T", "H", "K", "V", "chunk", "with_h0", "dtype"), CASES)
def test_outputs_state_and_gradients_agree_with_the_reference(B, T, H, K, V, chunk, with_h0, dtype):
    gen = torch.Generator().manual_seed(0)

    def random(*shape):
        x = torch.randn(*shape, generator=gen).to(dtype).to(DEVICE)
        return x.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()  # rows that are not next to each other

    inputs = [random(B, T, H, K), random(B, T, H, K), random(B, T, H, V), decays(gen, B, T, H, K).requires_grad_()]
    inputs += [random(B, H, K, V)] if with_h0 else []
    wide = [i.detach().float().requires_grad_() for i in inputs]

    expected = chunk_gla(*wide, backend="reference")
    seeds = [torch.randn(e.shape, generator=gen).to(DEVICE) for e in expected]
    expected_grads = torch.autograd.grad(expected, wide, seeds)
    with poisoned_empty():
        actual = chunk_gla(*inputs, chunk=chunk, backend="triton")
        actual_grads = torch.autograd.grad(actual, inputs, [seeds[0].to(dtype), seeds[1]])

    for name, e, a in zip(("o", "state"), expected, actual, strict=True):
        assert_close(name, e, a, rel=TOLERANCE[dtype])
    for name, e, a in zip(("dq", "dk", "dv", "dlog_decay", "dh0"), expected_grads, actual_grads, strict=False):
        assert_close(name, e, a, rel=TOLERANCE[dtype])


def test_a_later_input_leaves_earlier_outputs_as_they_were_to_the_bit():
    gen = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 40, 1, 16, generator=gen).to(DEVICE) for _ in range(3))
    g = decays(gen, 1, 40, 1, 16)
    before, _ = chunk_gla(q, k, v, g, chunk=32, backend="triton")
    for x in (q, k, v, g):
        x[:, 21:] -= 3
    after, _ = chunk_gla(q, k, v, g, chunk=32, backend="triton")
    assert torch.equal(before[:, :21], after[:, :21])
