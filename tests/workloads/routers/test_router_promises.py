"""What every router promises, held over the whole registry: a newly registered router enters by itself."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.workloads.routers.zoo import BATCH, NAMES, TIME, D, N, context, matrix, moe, route, router, tokens
from workloads import build_router
from workloads.feedforward.dense import Dense
from workloads.feedforward.options.dense import Dense as DenseOptions
from workloads.routers.options import ROUTERS
from workloads.slots import LayerContext, for_each_router

WITH_K = [name for name in NAMES if "k" in ROUTERS[name].fields]

# The numbers of the experts matter: a table, a code, or experts with different parts to play
NUMBERED = {"hash", "dselect_k", "comet", "acm", "sma", "deepseek_moe", "cmr", "dense_to_sparse"}
# Evaluation draws noise by position
DRAWS_IN_EVALUATION = {"gumbel"}
# The order of tokens matters in evaluation: room is given in order, or the gate looks at neighbours
ORDERED = {"gshard", "glam", "switch", "cosine", "aw_moe", "gumbel"}
# One expert serves some tokens, or with a weight of its own: that is the method
SKIPS_OR_SCALES = {"acm", "base", "eom", "fom", "loss_free", "mixture_of_depths", "sma"}
# Training hands on an estimate instead of the gradient; `test_sparsemixer` enumerates that of SparseMixer
ESTIMATES = {"acm", "sparsemixer"}
# Options under which the whole gradient flows: past the phases in which a part rests, without detached inputs
FLOWING = {
    "dense_to_sparse": {"diversify": 0.0},
    "mixture_of_depths": {"predictor": "aux"},
    "token_fusion": {"gate_only": 0.0},
}
# Training looks at later tokens; with the options under which it does most
LOOKS_AHEAD = {
    "expert_choice": {},
    "base": {},
    "mixture_of_depths": {},
    "gshard": {"min_capacity": 1},
    "glam": {"min_capacity": 1, "capacity_factor": 1.0},
}


def assert_is_a_plan(routing, n: int, num_experts: int) -> None:
    assert routing.token.shape == routing.expert.shape == routing.weight.shape == (len(routing.token),)
    assert routing.token.dtype is routing.expert.dtype is torch.int64
    assert routing.weight.dtype is torch.float32
    assert ((routing.token >= 0) & (routing.token < n)).all()
    assert ((routing.expert >= 0) & (routing.expert < num_experts)).all()
    assert routing.weight.isfinite().all()
    assert all(loss.ndim == 0 and loss.isfinite() for loss in routing.aux_losses.values())
    assert all(stat.ndim == 0 and not stat.requires_grad for stat in routing.stats.values())
    assert routing.probs is None or routing.probs.shape == (n, num_experts)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("num_experts", [1, 2, 5, 8])
@pytest.mark.parametrize("name", NAMES)
def test_a_plan_is_a_plan(name, num_experts, train):
    built = router(name, num_experts, train=train)
    assert_is_a_plan(route(built, tokens(), context()), N, num_experts)
    assert_is_a_plan(route(built, tokens()), N, num_experts)
    assert_is_a_plan(route(built, tokens(1), LayerContext(shape=(1, 1))), 1, num_experts)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NAMES)
def test_no_tokens_make_an_empty_plan_that_hangs_on_every_parameter(name, train):
    layer, where = moe(name).train(train), context(0, TIME)
    assert_is_a_plan(layer.router(tokens(0), where), 0, 5)
    y = layer(tokens(0).view(0, TIME, D), where)
    assert y.shape == (0, TIME, D)
    assert all(stat.isfinite() for stat in where.stats.values())
    (y.sum() + sum(where.losses.values())).backward()
    assert all(p.grad is not None and not p.grad.any() for p in layer.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", WITH_K)
def test_k_may_be_all_experts(name):
    routing = route(router(name, 4, k=4), tokens(), context())
    assert_is_a_plan(routing, N, 4)
    assert torch.bincount(routing.expert, minlength=4).min() > 0


@pytest.mark.parametrize("name", WITH_K)
def test_a_given_k_over_the_number_of_experts_is_refused(name):
    with pytest.raises(ValueError, match=r"k \(9\) is more than num_experts \(4\)"):
        build_router(name, D, 4, k=9)


@pytest.mark.parametrize("name", NAMES)
def test_equal_experts_make_the_routing_irrelevant(name):
    """y = (sum of the token's weights) · F(x), whatever the router does."""
    layer = moe(name)
    with torch.no_grad():
        for weight in (layer.experts.gate, layer.experts.up, layer.experts.down):
            weight.copy_(weight[:1].expand_as(weight))
    one = Dense(D, DenseOptions(hidden=8))
    one.gate.data, one.up.data, one.down.data = (
        getattr(layer.experts, part).data[0] for part in ("gate", "up", "down")
    )
    x = tokens()
    routing = route(layer.router, x, context())
    mixed, _ = layer.mix(x, routing)
    expected = matrix(routing, N, 5).sum(1, keepdim=True) * one(x)
    # float32 sums in another order
    torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(NAMES) - NUMBERED - DRAWS_IN_EVALUATION))
def test_experts_that_swap_places_take_their_gates_along(name):
    num_experts, order = 5, torch.tensor([3, 0, 4, 1, 2])
    built = router(name, num_experts, train=False)
    swapped = copy.deepcopy(built)
    state = {
        key: value[order] if value.ndim and value.shape[0] == num_experts else value
        for key, value in built.state_dict().items()
    }
    swapped.load_state_dict(state)
    x, where = tokens(), context()
    before = matrix(route(built, x, where), N, num_experts)
    after = matrix(route(swapped, x, context()), N, num_experts)
    torch.testing.assert_close(after, before[:, order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(NAMES) - ORDERED))
def test_tokens_that_swap_places_keep_their_experts_in_evaluation(name):
    built, order = router(name, train=False), torch.randperm(N, generator=torch.Generator().manual_seed(0))
    where = context(N, 1)
    moved = LayerContext(tokens=where.tokens[order], shape=(N, 1))
    before = matrix(route(built, tokens(), where), N, 5)
    after = matrix(route(built, tokens()[order], moved), N, 5)
    torch.testing.assert_close(after, before[order], rtol=1e-5, atol=1e-6)


def looks_ahead(name: str, seed: int, *, train: bool, **options) -> bool:
    """Whether a change of one token changes the plan of an earlier one of its sequence."""
    x, where = tokens(seed=seed), context()
    built = router(name, train=train, **options)
    other = copy.deepcopy(built)
    at = TIME - 4
    y, elsewhere = x.clone(), LayerContext(tokens=where.tokens.clone(), shape=where.shape)
    y[at], elsewhere.tokens[0, at] = -2 * x[at] + 1, (where.tokens[0, at] + 7) % 256
    before = matrix(route(built, x, where), N, 5)[:at]
    after = matrix(route(other, y, elsewhere), N, 5)[:at]
    return not torch.equal(before, after)


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_never_looks_ahead(name):
    tight = {"eval_capacity_factor": 1.0, "min_capacity": 1} if "min_capacity" in ROUTERS[name].fields else {}
    assert not any(looks_ahead(name, seed, train=False, **tight) for seed in range(4))


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(LOOKS_AHEAD)))
def test_training_does_not_look_ahead_where_it_need_not(name):
    assert not any(looks_ahead(name, seed, train=True) for seed in range(4))


@pytest.mark.parametrize("name", sorted(LOOKS_AHEAD))
def test_the_probe_sees_a_router_that_looks_ahead(name):
    assert any(looks_ahead(name, seed, train=True, **LOOKS_AHEAD[name]) for seed in range(12))


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_and_reach_every_parameter(name, autocast):
    layer, x = moe(name), tokens().view(BATCH, TIME, D).requires_grad_()
    where = context()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x, where)
    (y.float().square().sum() + sum(where.losses.values())).backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    # A pre-gate for the next layer waits for that layer; `place` drops it where there is none
    waiting = {"router.ahead.weight"} if name == "pre_gated" else set()
    without = {key for key, p in layer.named_parameters() if p.requires_grad and p.grad is None}
    assert without == waiting
    assert all(p.grad.isfinite().all() for p in layer.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", sorted(set(NAMES) - SKIPS_OR_SCALES))
def test_one_expert_is_the_dense_layer(name):
    routing = route(router(name, 1, train=False), tokens(), context())
    torch.testing.assert_close(matrix(routing, N, 1), torch.ones(N, 1))


@pytest.mark.parametrize(
    ("name", "train"), [(name, train) for name in NAMES for train in (False, True) if not (train and name in ESTIMATES)]
)
def test_gradients_are_those_of_finite_differences(name, train):
    """Output and losses of a layer in float64, by its input and every parameter, its random numbers held fixed.

    Choices are constant near any point, so that hard gates have a derivative, too.
    """
    options = FLOWING.get(name, {})
    layer = moe(name, 4, **options).double().train(train)
    layer.router.load_state_dict(router(name, 4, **options).state_dict())
    parameters = [p for p in layer.parameters() if p.requires_grad]
    x = tokens(6, dtype=torch.float64).view(2, 3, D).requires_grad_()

    def run(x: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        torch.manual_seed(11)
        where = context(2, 3)
        return layer(x, where), *(where.losses[key] for key in sorted(where.losses) if where.losses[key].requires_grad)

    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_does_not_touch_the_gate(name):
    built, x = router(name), tokens()
    plain = route(copy.deepcopy(built), x, context())
    with torch.autocast("cpu", torch.bfloat16):
        cast = route(built, x, context())
    assert torch.equal(matrix(plain, N, 5), matrix(cast, N, 5))


def advance(layer, steps: range, total: int = 20) -> list[torch.Tensor]:
    """Train a layer on fixed inputs for some steps; returns its outputs."""
    outputs = []
    for step in steps:
        for_each_router(layer, lambda part, step=step: part.set_progress(step, total))
        where = context(seed=step)
        y = layer(tokens(seed=step).view(BATCH, TIME, D), where)
        layer.zero_grad()
        (y.square().sum() + sum(where.losses.values())).backward()
        with torch.no_grad():
            for p in layer.parameters():
                if p.grad is not None:
                    p -= 0.01 * p.grad
        for_each_router(layer, lambda part: part.after_step())
        outputs.append(y.detach())
    return outputs


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_resumes_exactly_from_a_checkpoint(name):
    options = {"search": 0.4} if name == "comet" else {"table": "balanced"} if name == "hash" else {}
    layer = moe(name, **options)
    advance(layer, range(5))
    saved, generator = copy.deepcopy(layer.state_dict()), torch.get_rng_state()
    layer.eval()
    evaluated = layer(tokens().view(BATCH, TIME, D), context())
    layer.train()
    torch.set_rng_state(generator)
    undisturbed = advance(layer, range(5, 16))

    resumed = moe(name, seed=9, **options)
    resumed.load_state_dict(saved)
    resumed.eval()
    assert torch.equal(resumed(tokens().view(BATCH, TIME, D), context()), evaluated)
    resumed.train()
    torch.set_rng_state(generator)
    assert all(torch.equal(a, b) for a, b in zip(advance(resumed, range(5, 16)), undisturbed, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_options_are_documented_and_worth_their_sweeps(name):
    method = ROUTERS[name]
    assert len(method.doc) > 80
    assert "arXiv" in method.source or "doi" in method.source
    assert method.sweep
    for option, values in method.sweep.items():
        assert method.fields[option].description
        for value in values:
            method.options(name=name, **{option: value})
