"""What passes between layers: RMoE's state, pre-gates, experts in common."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.workloads.routers.zoo import BATCH, TIME, D, N, matrix, moe, route, router, tokens, train
from workloads.slots import LayerContext

E = 5


def stack(name: str, depth: int, **options):
    """Mixture layers placed as in a model."""
    layers = [moe(name, seed=seed, **options) for seed in range(depth)]
    for index, layer in enumerate(layers):
        layer.place(layers, index)
    return layers


def run(layers, x):
    """The stream after all layers, and what they left."""
    where = LayerContext(num_layers=len(layers))
    for index, layer in enumerate(layers):
        where.layer = index
        x = x + layer(x, where)
    return x, where


def hidden() -> torch.Tensor:
    return tokens().view(BATCH, TIME, D)


def test_zero_states_are_the_ablation_without_passing():
    built, alone = router("rmoe"), router("rmoe", pass_state=False)
    x = tokens()
    zero = LayerContext(carry={"rmoe": torch.zeros(N, 128)})
    assert torch.equal(matrix(route(built, x, zero), N, E), matrix(route(alone, x, LayerContext()), N, E))
    other = LayerContext(carry={"rmoe": torch.ones(N, 128)})
    assert not torch.equal(matrix(route(built, x, other), N, E), matrix(route(alone, x, LayerContext()), N, E))
    again = LayerContext(carry={"rmoe": torch.ones(N, 128)})
    assert torch.equal(matrix(route(alone, x, again), N, E), matrix(route(alone, x, LayerContext()), N, E))


def test_the_layers_of_a_model_share_one_cell_and_little_else():
    layers, q = stack("rmoe", 3, width=8), 8
    parameters = {id(p): p.numel() for layer in layers for p in layer.router.parameters()}
    assert sum(parameters.values()) == 3 * q * (D + E) + 6 * q * q + 6 * q


def test_the_gradient_runs_down_through_the_state_unless_detached():
    for detach, reached in ((False, True), (True, False)):
        layers = stack("rmoe", 2, width=8, detach=detach, balance_weight=0.0)
        where = LayerContext(num_layers=2)
        x = tokens()
        layers[0].router(x, where)
        layers[1].router(x, where).weight.pow(2).sum().backward()
        assert (layers[0].router.project.weight.grad is not None) == reached


@pytest.mark.parametrize("cell", ["gru", "rnn", "none"])
def test_every_cell_routes(cell):
    _, where = run(stack("rmoe", 2, width=8, cell=cell), hidden())
    assert where.stats["1/router_state_rms"] > 0


def test_level_zero_is_top_k():
    built, top = router("pre_gated", level=0), router("topk")
    top.gate.load_state_dict(built.own.state_dict())
    assert torch.equal(matrix(route(built, tokens(), LayerContext()), N, E), matrix(route(top, tokens()), N, E))


@pytest.mark.parametrize("level", [1, 2])
def test_each_depth_keeps_the_gates_that_it_needs(level):
    layers = stack("pre_gated", 4, level=level)
    assert [layer.router.own is not None for layer in layers] == [i < level for i in range(4)]
    assert [layer.router.ahead is not None for layer in layers] == [i + level < 4 for i in range(4)]
    _, where = run(layers, hidden())
    assert [where.stats[f"{i}/chosen_ahead"].item() for i in range(4)] == [float(i >= level) for i in range(4)]


def test_a_layer_follows_the_gate_below_it():
    first, second = stack("pre_gated", 2)
    x, where = tokens(), LayerContext(num_layers=2)
    first.router(x, where)
    routing = second.router(2 * tokens(seed=5), where)
    chosen = first.router.ahead(x).topk(2).indices
    assert torch.equal(routing.expert.view(N, 2), chosen)


def test_equal_streams_and_gates_make_pre_gating_normal_gating():
    first, second = stack("pre_gated", 2)
    normal = router("topk")
    normal.gate.load_state_dict(first.router.ahead.state_dict())
    x, where = tokens(), LayerContext(num_layers=2)
    first.router(x, where)
    assert torch.equal(matrix(second.router(x, where), N, E), matrix(route(normal, x), N, E))


def test_one_model_has_one_level():
    layers = [moe("pre_gated", level=level) for level in (1, 2)]
    with pytest.raises(ValueError, match="one level"):
        layers[0].place(layers, 0)


@pytest.mark.parametrize(("group", "sets"), [(1, 4), (2, 2), (0, 1)])
def test_groups_of_layers_use_one_set_of_experts(group, sets):
    layers = stack("shared_experts_across_layers", 4, group_size=group)
    assert len({id(layer.experts) for layer in layers}) == sets
    assert len({id(layer.router.gate) for layer in layers}) == 4


def test_routers_may_be_shared_too():
    layers = stack("shared_experts_across_layers", 4, group_size=2, individual_router=False)
    assert len({id(layer.router.gate) for layer in layers}) == 2


def test_the_gradient_of_shared_experts_is_the_sum_over_an_untied_copy():
    tied = stack("shared_experts_across_layers", 2)
    untied = [copy.deepcopy(layer) for layer in tied]
    for layers in (tied, untied):
        y, _ = run(layers, hidden())
        y.square().sum().backward()
    for part in ("gate", "up", "down"):
        apart = sum(getattr(layer.experts, part).grad for layer in untied)
        torch.testing.assert_close(getattr(tied[0].experts, part).grad, apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["rmoe", "pre_gated", "shared_experts_across_layers", "hypermoe"])
def test_every_parameter_of_a_deep_model_learns(name):
    for missing in train(name, 1, layers=3, watch=lambda model, where: unlearned(model)):
        assert missing == []


def unlearned(model) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
