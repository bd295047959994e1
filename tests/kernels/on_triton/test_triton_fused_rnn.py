"""fused_rnn in Triton against its reference: outputs, states and every gradient."""

import pytest
import torch

from kernels import fused_rnn
from kernels.fused_rnn.cells import CELLS
from kernels.testing import DEVICE, assert_close, poisoned_empty

CASES = [
    # B, T, I, N, D,  h0,    dtype,         why this one
    (1, 1, 3, None, 5, False, torch.float32),  # one step, a dense matrix, padded to a product's least size
    (3, 5, 4, 3, 4, True, torch.float32),  # heads, and a carried state
    (17, 4, 6, 2, 18, True, torch.float32),  # two tiles of rows, a width between powers of two
    (2, 6, 4, 2, 6, True, torch.bfloat16),  # low precision in, float32 inside
]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-2}  # bfloat16: the product with the input is rounded to 8 bits


def flat(result):
    y, state = result
    return [y, *(state if isinstance(state, tuple) else (state,))]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("B", "T", "I", "N", "D", "with_h0", "dtype"), CASES)
def test_outputs_states_and_gradients_agree_with_the_reference(cell, B, T, I, N, D, with_h0, dtype):
    gen = torch.Generator().manual_seed(0)

    def random(*shape):
        x = (0.5 * torch.randn(*shape, generator=gen)).to(dtype).to(DEVICE)
        return x.t().contiguous().t().requires_grad_() if x.ndim == 2 else x.requires_grad_()  # columns side by side

    gates, hidden = CELLS[cell].gates, (N or 1) * D
    weights = [random(gates * hidden, I), random(N, gates * D, D) if N else random(gates * hidden, hidden)]
    inputs = [random(B, T, I), *weights, random(gates * hidden), random(gates * hidden)]
    state = [random(B, hidden) for _ in CELLS[cell].states] if with_h0 else []
    if len(state) == 4:
        state[2] = (state[2].detach().abs() + 0.5).requires_grad_()
    wide = [t.detach().float().requires_grad_() for t in (*inputs, *state)]

    expected = flat(fused_rnn(cell, *wide[:5], wide[5:] or None, backend="reference"))
    seeds = [torch.randn(e.shape, generator=gen).to(DEVICE) for e in expected]
    expected_grads = torch.autograd.grad(expected, wide, seeds)
    with poisoned_empty():
        actual = flat(fused_rnn(cell, *inputs, state or None, backend="triton"))
        actual_grads = torch.autograd.grad(
            actual, [*inputs, *state], [s.to(a.dtype) for s, a in zip(seeds, actual, strict=True)]
        )

    names = ["x", "w_ih", "w_hh", "b_ih", "b_hh", *(f"{s}0" for s in CELLS[cell].states)]
    for name, e, a in zip(["y", *CELLS[cell].states], expected, actual, strict=True):
        assert_close(name, e, a, rel=TOLERANCE[dtype])
    for name, e, a in zip(names, expected_grads, actual_grads, strict=False):
        assert_close(f"d{name}", e, a, rel=TOLERANCE[dtype])
