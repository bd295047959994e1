"""fused_rnn on the CPU: against its reference, torch.nn, its laws, its edges, its errors."""

import pytest
import torch
from torch import nn

from kernels import fused_rnn
from kernels.fused_rnn.cells import CELLS
from kernels.testing import assert_close

CASES = [
    # B, T, I, N,    D, h0,    biased, why this one
    (1, 1, 1, None, 1, False, True),  # one of everything
    (2, 7, 5, None, 6, True, True),  # dense
    (3, 9, 4, 3, 4, True, True),  # heads
    (2, 5, 4, 2, 3, False, False),  # no biases
]


def make(random, cell, B, T, I, N, D, with_h0, biased):
    gates, hidden = CELLS[cell].gates, (N or 1) * D
    w_hh = random(N, gates * D, D) if N else random(gates * hidden, hidden)
    biases = [random(gates * hidden), random(gates * hidden)] if biased else [None, None]
    state = [random(B, hidden) for _ in CELLS[cell].states] if with_h0 else []
    if len(state) == 4:
        state[2] = (state[2].detach().abs() + 0.5).requires_grad_()  # n is a sum of weights
    return [random(B, T, I), random(gates * hidden, I), w_hh, *biases], state


def run(cell, inputs, state, backend="cpu"):
    y, last = fused_rnn(cell, *inputs, (state if len(state) > 1 else state[0]) if state else None, backend=backend)
    return [y, *(last if isinstance(last, tuple) else (last,))]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("B", "T", "I", "N", "D", "with_h0", "biased"), CASES)
def test_outputs_states_and_gradients_agree_with_the_reference(random, cell, B, T, I, N, D, with_h0, biased):
    inputs, state = make(random, cell, B, T, I, N, D, with_h0, biased)
    expected, actual = run(cell, inputs, state, "reference"), run(cell, inputs, state)
    leaves = [x for x in (*inputs, *state) if x is not None]
    seeds = [random(*e.shape).detach() for e in expected]
    for name, e, a in zip(("y", *CELLS[cell].states), expected, actual, strict=True):
        assert_close(name, e, a, rel=1e-11)
    expected_grads = torch.autograd.grad(expected, leaves, seeds)
    for i, (e, a) in enumerate(zip(expected_grads, torch.autograd.grad(actual, leaves, seeds), strict=True)):
        assert_close(f"gradient of input {i}", e, a, rel=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_gradient_agrees_with_finite_differences(random, cell):
    inputs, state = make(random, cell, 2, 3, 2, 2, 2, True, True)

    def outputs(*leaves):
        return tuple(run(cell, leaves[:5], leaves[5:]))

    assert torch.autograd.gradcheck(outputs, (*inputs, *state))


@pytest.mark.parametrize(("cell", "layer"), [("rnn_tanh", nn.RNN), ("lstm", nn.LSTM), ("gru", nn.GRU)])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_weights_of_torch_nn_give_the_outputs_of_torch_nn(cell, layer, backend):
    torch.manual_seed(0)
    module = layer(3, 5, batch_first=True, dtype=torch.float64)
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    expected, _ = module(x)
    y, _ = fused_rnn(cell, x, *(p for p in module.parameters()), backend=backend)
    assert_close("y", expected, y, rel=1e-12)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_one_head_is_the_dense_matrix_and_heads_are_its_diagonal_blocks(random, cell, backend):
    inputs, state = make(random, cell, 2, 4, 3, 2, 3, True, True)
    heads = inputs[2].detach()
    dense = torch.zeros(CELLS[cell].gates, 2, 3, 2, 3, dtype=torch.float64)
    for head in range(2):
        dense[:, head, :, head] = heads[head].view(-1, 3, 3)
    inputs_dense = [*inputs[:2], dense.reshape(-1, 6), *inputs[3:]]
    expected, actual = run(cell, inputs_dense, state, backend), run(cell, inputs, state, backend)
    assert_close("y", expected[0], actual[0], rel=1e-12)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("heads", [None, 2])
def test_two_halves_with_the_state_carried_give_the_whole(random, cell, heads):
    (x, *weights), _ = make(random, cell, 2, 9, 3, heads, 4, False, True)
    whole = run(cell, [x, *weights], [])
    y, *state = run(cell, [x[:, :4], *weights], [])
    z, *last = run(cell, [x[:, 4:], *weights], state)
    assert_close("y", whole[0], torch.cat([y, z], dim=1), rel=1e-12)
    for name, e, a in zip(CELLS[cell].states, whole[1:], last, strict=True):
        assert_close(name, e, a, rel=1e-12)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", [60.0, 1e4])
def test_saturated_gates_give_finite_outputs_and_gradients(random, cell, size):
    inputs, _ = make(random, cell, 2, 5, 3, 2, 3, False, True)
    inputs[0] = (size * inputs[0].detach()).requires_grad_()
    y, *_ = run(cell, inputs, [])
    assert y.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), inputs))


def test_stabilised_slstm_equals_the_formula_without_stabiliser(random):
    inputs, _ = make(random, "slstm", 1, 6, 3, None, 4, False, False)
    x, w_ih, w_hh, *_ = inputs
    h = c = n = torch.zeros(1, 4, dtype=torch.float64)
    for t in range(6):
        i, f, z, o = (x[:, t] @ w_ih.T + h @ w_hh.T).chunk(4, dim=-1)
        c, n = f.sigmoid() * c + i.exp() * z.tanh(), f.sigmoid() * n + i.exp()
        h = o.sigmoid() * c / n
    assert_close("h", h, run("slstm", inputs, [])[0][:, -1], rel=1e-12)


def test_low_precision_inputs_keep_a_float32_state(random):
    inputs, _ = make(random, "lstm", 2, 4, 3, 2, 4, False, True)
    y, h, c = run("lstm", [x.detach().bfloat16() for x in inputs], [])
    assert (y.dtype, h.dtype, c.dtype) == (torch.bfloat16, torch.float32, torch.float32)


@pytest.mark.parametrize(
    ("cell", "change", "message"),
    [
        ("elman", {}, "cell must be one of rnn_tanh, lstm, gru, slstm; got 'elman'"),
        ("gru", {}, r"w_hh of 'gru' must be \[3·H, H\]"),
        ("lstm", {0: (2, 3, 9)}, r"w_ih of 'lstm' must be \[4·H, I\] = \(20, 9\)"),
        ("lstm", {3: (5,)}, r"b_ih must be \[4·H\] = \(20,\), got \(5,\)"),
        ("lstm", {0: (2, 0, 7)}, "at least one step"),
    ],
)
def test_wrong_shapes_are_named(cell, change, message):
    shapes = [(2, 3, 7), (20, 7), (20, 5), (20,), (20,)]
    tensors = [torch.zeros(change.get(i, shape)) for i, shape in enumerate(shapes)]
    with pytest.raises(ValueError, match=message):
        fused_rnn(cell, *tensors)
    if not change and cell == "gru":
        with pytest.raises(ValueError, match=r"the state of 'lstm' is \(h, c\), each \[B, H\] = \(2, 5\)"):
            fused_rnn("lstm", *tensors, torch.zeros(2, 5))
