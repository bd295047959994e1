"""gated_delta_rule in Triton against its reference: outputs, last state and every gradient."""

import pytest
import torch
import torch.nn.functional as F

from kernels import gated_delta_rule
from kernels.testing import DEVICE, assert_close, poisoned_empty

CASES = [
    # B, T,  H, K,  V, chunk, h0,   dtype,          why this one
    (1, 1, 1, 3, 5, 16, False, torch.float32),  # one step, blocks mostly masked
    (2, 37, 2, 20, 19, 16, True, torch.float32),  # three chunks, the last not full, two blocks of values
    (1, 40, 2, 16, 16, 32, True, torch.bfloat16),  # low precision in, float32 inside
]
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2}  # float32: a triangular inverse; bfloat16: 8-bit outputs


@pytest.mark.parametrize(("B", "T", "H", "K", "V", "chunk", "with_h0", "dtype"), CASES)
def test_outputs_state_and_gradients_agree_with_the_reference(B, T, H, K, V, chunk, with_h0, dtype):
    gen = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=gen)

    beta = 2 * torch.rand(B, T, H, generator=gen)
    beta[:, ::6], beta[:, 3::6] = 0, 1
    g = -torch.rand(B, T, H, generator=gen)
    g[:, ::9], g[:, 3::7], g[:, 4::11] = -50, 0, -torch.inf
    parts = [random(B, T, H, K), F.normalize(random(B, T, H, K), dim=-1), random(B, T, H, V), beta]
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in parts]  # rows that are not next to each other
    inputs = [x.to(dtype).to(DEVICE).requires_grad_() for x in strided] + [g.to(DEVICE).requires_grad_()]
    inputs += [random(B, H, K, V).to(dtype).to(DEVICE).requires_grad_()] if with_h0 else []
    wide = [i.detach().float().requires_grad_() for i in inputs]

    expected = gated_delta_rule(*wide, backend="reference")
    seeds = [random(*e.shape).to(DEVICE) for e in expected]
    expected_grads = torch.autograd.grad(expected, wide, seeds)
    with poisoned_empty():
        actual = gated_delta_rule(*inputs, chunk=chunk, backend="triton")
        actual_grads = torch.autograd.grad(actual, inputs, [seeds[0].to(dtype), seeds[1]])

    for name, e, a in zip(("o", "state"), expected, actual, strict=True):
        assert_close(name, e, a, rel=TOLERANCE[dtype])
    names = ("dq", "dk", "dv", "dbeta", "dlog_decay", "dh0")
    for name, e, a in zip(names, expected_grads, actual_grads, strict=False):
        assert_close(name, e, a, rel=TOLERANCE[dtype])
