"""Dispatch and combine: conservation, invariance, and the layer that they make with the grouped products."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import fused_glu_mlp, grouped_mm, moe_combine, moe_dispatch, moe_route
from kernels.testing import assert_close

FORMS = ("reference", "cpu")
PLAN_FIELDS = ("counts", "assignment", "token", "bag_row", "bag_assignment", "bag_start")


@st.composite
def routings(draw):
    """(x, index, num_experts, token): both forms of assignments, small enough to draw the corners."""
    n, e = draw(st.integers(1, 7)), draw(st.integers(1, 6))
    gen = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))
    x = torch.randn(n, draw(st.integers(1, 5)), generator=gen)
    if draw(st.booleans()):
        return x, torch.randint(0, e, (n, draw(st.integers(1, 4))), generator=gen), e, None
    m = draw(st.integers(0, 12))
    return x, torch.randint(0, e, (m,), generator=gen), e, torch.randint(0, n, (m,), generator=gen)


def _token(x, index, token):
    return torch.arange(len(x)).repeat_interleave(index.shape[1]) if token is None else token


@settings(max_examples=60, deadline=None)
@given(routings())
def test_the_pytorch_form_makes_the_plan_and_the_sums_of_the_reference(routing):
    x, index, e, token = routing
    weight = torch.rand(index.shape, generator=torch.Generator().manual_seed(0))
    (rows, plan), (rows_cpu, plan_cpu) = (moe_dispatch(x, index, e, token=token, backend=b) for b in FORMS)
    assert torch.equal(rows, rows_cpu)
    for field in PLAN_FIELDS:
        assert torch.equal(getattr(plan, field), getattr(plan_cpu, field)), field
    for w in (weight, None):
        y, y_cpu = moe_combine(rows, plan, w, backend="reference"), moe_combine(rows_cpu, plan_cpu, w)
        assert torch.allclose(y, y_cpu, rtol=1e-5, atol=1e-6)  # absolute: sums may cancel


@settings(max_examples=60, deadline=None)
@given(routings())
def test_dispatch_keeps_every_assignment_once_grouped_by_expert_in_order(routing):
    x, index, e, token = routing
    rows, plan = moe_dispatch(x, index, e, token=token)
    expert, token = index.flatten(), _token(x, index, token)
    assert torch.equal(plan.assignment.sort().values, torch.arange(len(expert)))
    assert torch.equal(plan.counts, torch.bincount(expert, minlength=e))
    keys = (expert * (len(expert) + 1) + torch.arange(len(expert)))[plan.assignment]
    assert torch.equal(keys, keys.sort().values)
    assert torch.equal(rows, x[token[plan.assignment]])


@settings(max_examples=60, deadline=None)
@given(routings())
def test_combining_with_unit_weights_multiplies_each_token_by_its_assignments(routing):
    x, index, e, token = routing
    rows, plan = moe_dispatch(x, index, e, token=token)
    times = torch.bincount(_token(x, index, token), minlength=len(x))
    assert_close("y", times[:, None] * x, moe_combine(rows, plan), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(routings(), st.randoms(use_true_random=False))
def test_the_order_of_assignments_and_the_names_of_experts_do_not_matter(routing, random):
    x, index, e, token = routing
    expert, token = index.flatten(), _token(x, index, token)
    gen = torch.Generator().manual_seed(random.randrange(2**31))
    weight = torch.rand(len(expert), generator=gen)
    w = torch.randn(e, x.shape[1], 3, generator=gen)
    order, names = torch.randperm(len(expert), generator=gen), torch.randperm(e, generator=gen)

    def layer(token, expert, weight, w):
        rows, plan = moe_dispatch(x, expert, e, token=token)
        return moe_combine(grouped_mm(rows, w, plan.counts), plan, weight)

    renamed = torch.empty_like(w).index_copy_(0, names, w)
    y = layer(token, expert, weight, w)
    permuted = layer(token[order], names[expert][order], weight[order], renamed)
    assert torch.allclose(y, permuted, rtol=1e-4, atol=1e-5)  # absolute: sums may cancel


@settings(max_examples=40, deadline=None)
@given(routings())
def test_identical_experts_give_the_dense_result_whatever_the_routing(routing):
    x, index, e, token = routing
    gen = torch.Generator().manual_seed(0)
    weight = torch.rand(index.shape, generator=gen)
    w = torch.randn(x.shape[1], 4, generator=gen)
    rows, plan = moe_dispatch(x, index, e, token=token)
    y = moe_combine(grouped_mm(rows, w.expand(e, -1, -1), plan.counts), plan, weight)
    mass = torch.zeros(len(x)).index_add_(0, _token(x, index, token), weight.flatten())
    assert torch.allclose(y, mass[:, None] * (x @ w), rtol=1e-4, atol=1e-5)


def test_a_whole_layer_matches_a_loop_over_tokens():
    gen = torch.Generator().manual_seed(0)
    n, d, h, e, k = 9, 6, 10, 4, 2
    x, logits = torch.randn(n, d, generator=gen), torch.randn(n, e, generator=gen)
    w_gate, w_up, w_down = (torch.randn(e, *s, generator=gen) for s in ((d, h), (d, h), (h, d)))
    index, weight, _ = moe_route(logits, k)
    rows, plan = moe_dispatch(x, index, e)
    y = moe_combine(fused_glu_mlp(rows, w_gate, w_up, w_down, plan.counts), plan, weight)
    for t in range(n):
        p, chosen = logits[t].softmax(0).topk(k)
        experts = [(torch.nn.functional.silu(x[t] @ w_gate[i]) * (x[t] @ w_up[i])) @ w_down[i] for i in chosen]
        assert_close(f"y[{t}]", sum(g * out for g, out in zip(p / p.sum(), experts, strict=True)), y[t], rel=1e-5)


def test_gradients_match_finite_differences_with_dropped_and_repeated_tokens():
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, generator=gen, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(5, generator=gen, dtype=torch.float64, requires_grad=True)
    expert, token = torch.tensor([1, 0, 2, 0, 2]), torch.tensor([3, 0, 0, 1, 1])

    def layer(x, weight):
        rows, plan = moe_dispatch(x, expert, 4, token=token)
        return moe_combine(rows.tanh(), plan, weight)

    assert torch.autograd.gradcheck(layer, (x, weight))


def test_low_precision_rows_are_summed_in_float32():
    index = torch.zeros(1, 300, dtype=torch.int64)
    rows, plan = moe_dispatch(torch.ones(1, 1, dtype=torch.bfloat16), index, 1)
    assert moe_combine(rows, plan).item() == 300  # bfloat16 would stop at 256


def test_equal_inputs_give_equal_bits():
    gen = torch.Generator().manual_seed(0)
    x, index = torch.randn(50, 8, generator=gen), torch.randint(0, 4, (50, 3), generator=gen)
    weight = torch.rand(50, 3, generator=gen)
    results = {moe_combine(*moe_dispatch(x, index, 4), weight).numpy().tobytes() for _ in range(10)}
    assert len(results) == 1


def test_no_tokens_are_dispatched_to_no_rows():
    rows, plan = moe_dispatch(torch.zeros(0, 4), torch.zeros(0, 2, dtype=torch.int64), 3)
    assert rows.shape == (0, 4)
    assert plan.counts.tolist() == [0, 0, 0]
    assert moe_combine(rows, plan).shape == (0, 4)


def test_a_whole_layer_compiles_to_one_graph_with_the_same_result():
    gen = torch.Generator().manual_seed(0)
    shapes = ((10, 8), (10, 4), (4, 8, 16), (4, 8, 16), (4, 16, 8))
    inputs = [torch.randn(*shape, generator=gen).requires_grad_() for shape in shapes]

    def layer(x, logits, w_gate, w_up, w_down):
        index, weight, _ = moe_route(logits, 2)
        rows, plan = moe_dispatch(x, index, 4)
        return moe_combine(fused_glu_mlp(rows, w_gate, w_up, w_down, plan.counts), plan, weight)

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    eager_y, compiled_y = layer(*inputs), compiled(*inputs)
    assert_close("y", eager_y, compiled_y, rel=1e-6)
    grads = (torch.autograd.grad(y.square().sum(), inputs) for y in (eager_y, compiled_y))
    for name, want, got in zip(("x", "logits", "w_gate", "w_up", "w_down"), *grads, strict=True):
        assert_close(f"d{name}", want, got, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3)}, r"\[N, D\]"),
        ({"index": torch.zeros(3, 2)}, "integers"),
        ({"index": torch.zeros(4, 2, dtype=torch.int64)}, "one row for every token"),
        ({"index": torch.tensor([[0], [1], [2]])}, r"index must lie in \[0, 2\)"),
        ({"index": torch.tensor([0]), "token": torch.tensor([3])}, r"token must lie in \[0, 3\)"),
        ({"index": torch.tensor([0]), "token": torch.tensor([0, 1])}, "both be"),
    ],
)
def test_dispatch_refuses_wrong_inputs_with_what_was_expected(change, message):
    good = {"x": torch.zeros(3, 2), "index": torch.zeros(3, 1, dtype=torch.int64), "num_experts": 2}
    with pytest.raises(ValueError, match=message):
        moe_dispatch(**(good | change))


def test_combine_refuses_rows_and_weights_of_another_plan():
    _, plan = moe_dispatch(torch.zeros(3, 2), torch.zeros(3, 1, dtype=torch.int64), 2)
    with pytest.raises(ValueError, match=r"rows must be floating \[3, D\]"):
        moe_combine(torch.zeros(4, 2), plan)
    with pytest.raises(ValueError, match="weight must be floating with 3 elements"):
        moe_combine(torch.zeros(3, 2), plan, torch.ones(3, 2))
