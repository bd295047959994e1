"""The mixture layer and its dense baselines: sums, widths, hard cases, cost."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kernels import cost
from workloads import build_feedforward
from workloads.feedforward.health import routing_health
from workloads.feedforward.width import default_hidden, matrix
from workloads.slots import LayerContext, Routing

D, B, T = 16, 2, 6
N = B * T


def moe(num_experts: int = 4, **options):
    torch.manual_seed(0)
    return build_feedforward("moe", D, **{"num_experts": num_experts, "expert_hidden": 8, **options})


def hidden(*, seed: int = 0, **kwargs) -> torch.Tensor:
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(seed), **kwargs)


def expert_output(layer, e: int, x: torch.Tensor) -> torch.Tensor:
    gate, up, down = (getattr(layer.experts, part)[e] for part in ("gate", "up", "down"))
    return (torch.nn.functional.silu(x @ gate) * (x @ up)) @ down


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_output_is_the_explicit_sum_over_the_kept_experts(k):
    layer, x = moe(router={"name": "topk", "k": k}), hidden()
    routing = layer.router(x.view(N, D), LayerContext(shape=(B, T)))
    expected = torch.zeros(N, D)
    for token, expert, weight in zip(routing.token, routing.expert, routing.weight, strict=True):
        expected[token] += weight * expert_output(layer, int(expert), x.view(N, D)[token])
    torch.testing.assert_close(layer(x).view(N, D), expected, rtol=1e-4, atol=1e-6)


def test_one_expert_is_the_dense_layer():
    layer, x = moe(1, router={"name": "topk", "k": 1}), hidden()
    dense = build_feedforward("dense", D, hidden=8)
    for part in ("gate", "up", "down"):
        getattr(dense, part).data = getattr(layer.experts, part).data[0]
    torch.testing.assert_close(layer(x), dense(x), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("router", ["topk", "switch", "deepseek_moe", "gumbel"])
def test_active_parameters_equal_the_dense_layers(router):
    layer = build_feedforward("moe", 96, num_experts=8, router=router)
    active = layer.router.active_experts * layer.experts.hidden
    assert active == default_hidden(96, gated=True)


def test_matched_baselines_have_the_mixtures_width():
    layer = build_feedforward("moe", 48, num_experts=6, router={"name": "topk", "k": 2})
    total = build_feedforward("dense_matched", 48, num_experts=6, k=2, match="total")
    active = build_feedforward("dense_matched", 48, num_experts=6, k=2, match="active")
    assert size(total) == size(layer.experts)
    assert size(active) == size(layer.experts) * 2 // 6


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_plain_activations_have_the_parameters_of_gated_ones():
    gated, plain = (build_feedforward("dense", 48, activation=name) for name in ("swiglu", "gelu"))
    assert size(gated) == size(plain)


def test_initial_weights_have_the_asked_variance():
    torch.manual_seed(0)
    weight = matrix(4, 400, 100, scale=0.1)
    # A normal cut at two deviations has 0.774 of the variance
    assert weight.var().item() == pytest.approx(0.774 * 0.1 / 400, rel=0.05)
    assert weight.abs().max() <= 2 * (0.1 / 400) ** 0.5


PLANS = {
    "nothing": ([], [], []),
    "one token": ([3], [2], [0.5]),
    "all to one": (list(range(N)), [1] * N, [1.0] * N),
    "twice the same": ([5, 5], [0, 0], [0.25, 0.75]),
    "backwards": (list(range(N))[::-1], [n % 4 for n in range(N)], [1.0] * N),
}


@pytest.mark.parametrize("name", PLANS)
def test_any_plan_is_carried_out(name):
    token, expert, weight = PLANS[name]
    routing = Routing(
        torch.tensor(token, dtype=torch.int64), torch.tensor(expert, dtype=torch.int64), torch.tensor(weight)
    )
    layer, x = moe(), hidden().view(N, D).requires_grad_()
    y, _ = layer.mix(x, routing)
    expected = torch.zeros(N, D)
    for n, e, w in zip(token, expert, weight, strict=True):
        expected[n] += w * expert_output(layer, e, x[n]).detach()
    torch.testing.assert_close(y.detach(), expected, rtol=1e-4, atol=1e-6)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.experts.parameters())
    idle = sorted(set(range(4)) - set(expert))
    assert (layer.experts.up.grad[idle] == 0).all()


def test_a_batch_of_one_token():
    layer = moe()
    assert layer(torch.randn(1, 1, D)).shape == (1, 1, D)


def test_strided_inputs_are_welcome():
    layer = moe()
    x = hidden()
    torch.testing.assert_close(layer(x.transpose(0, 1).contiguous().transpose(0, 1)), layer(x))


def test_bf16_autocast_stays_near_float32():
    layer, x = moe(), hidden()
    plain = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        cast = layer(x)
    # bfloat16 keeps 8 bits: products of three matrices are good to some 2%
    assert (cast.float() - plain).norm() < 0.03 * plain.norm()


def test_losses_and_health_are_kept_by_layer():
    where = LayerContext(layer=3)
    moe(router={"name": "topk", "z_weight": 1e-3})(hidden(), where)
    assert set(where.losses) == {"3/balance", "3/z"}
    assert {f"3/{name}" for name in ("util_min", "util_max", "cv", "dead_frac", "entropy_norm", "margin")} < set(
        where.stats
    )
    assert not any(stat.requires_grad for stat in where.stats.values())


def health(token, expert, weight, probs=None, shared: int = 0, num_experts: int = 4) -> dict[str, float]:
    routing = Routing(torch.tensor(token), torch.tensor(expert), torch.tensor(weight), probs=probs)
    figures = routing_health(routing, 4, num_experts, shared)
    return {name: value.item() for name, value in figures.items()}


def test_health_of_an_even_and_of_a_collapsed_routing():
    even = health([0, 1, 2, 3], [0, 1, 2, 3], [1.0] * 4, torch.full((4, 4), 0.25))
    assert (even["util_min"], even["util_max"], even["cv"], even["dead_frac"]) == (1, 1, 0, 0)
    assert even["entropy_norm"] == pytest.approx(1)
    assert even["margin"] == pytest.approx(0)
    dead = health([0, 1, 2, 3], [2] * 4, [1.0] * 4, torch.eye(4)[[2, 2, 2, 2]])
    assert (dead["util_min"], dead["util_max"], dead["dead_frac"]) == (0, 4, 0.75)
    assert dead["cv"] == pytest.approx(3**0.5)
    assert (dead["entropy_norm"], dead["margin"]) == (0, 1)


def test_health_leaves_shared_experts_and_masked_assignments_out():
    figures = health([0, 0, 1, 1, 2], [0, 1, 0, 2, 3], [1.0, 0.5, 1.0, 0.5, 0.0], shared=1)
    assert figures["util_max"] == pytest.approx(1.5)
    assert figures["util_min"] == 0
    assert figures["experts_per_token"] == 1


def test_health_of_a_plan_without_rows_is_finite():
    routing = Routing(*(torch.zeros(0, dtype=dtype) for dtype in (torch.int64, torch.int64, torch.float32)))
    assert all(value.isfinite() for value in routing_health(routing, 4, 4).values())


def test_a_router_that_wants_more_experts_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"router.k \(3\) is more than num_experts \(2\)"):
        moe(2, router={"name": "topk", "k": 3})


@pytest.mark.parametrize("router", ["topk", "switch", "token_fusion", "hypermoe"])
def test_compiled_layers_agree_with_eager_ones(router):
    """The router and the context break the graph; the pieces are compiled."""
    layer, x = moe(router={"name": router}).eval(), hidden()
    expected = layer(x)
    compiled = torch.compile(layer, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-6)


def test_a_schedule_does_not_compile_the_layer_again():
    layer, x = moe(router={"name": "temperature_dense_to_sparse", "mode": "annealed", "threshold": 0.0}), hidden()
    graphs: list[object] = []

    def count(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(graph)
        return graph

    compiled = torch.compile(layer, backend=count)
    after = []
    for step in range(4):
        layer.set_progress(step, 4)
        compiled(x)
        after.append(len(graphs))
    assert after[0] > 0
    assert after[-1] == after[0]


ONE_EXPERT_S_WORK = 2 * 3 * D * 8
"""FLOPs of one token in one expert."""


def work_of(layer, where: LayerContext | None = None) -> float:
    """How many experts' work a pass does."""
    with torch.no_grad(), cost.counting() as ledger:
        layer(hidden(), where)
    return sum(ledger.flops.values()) / ONE_EXPERT_S_WORK


@pytest.mark.parametrize("num_experts", [4, 64])
def test_the_work_follows_the_assignments_and_not_the_experts(num_experts):
    assert work_of(moe(num_experts, router={"name": "topk", "k": 2})) == 2 * N


@pytest.mark.parametrize("capacity", [0.5, 1.0])
def test_a_mixture_of_depths_works_on_the_share_that_it_serves(capacity):
    assert work_of(moe(1, router={"name": "mixture_of_depths", "capacity": capacity})) == capacity * N


def test_an_adaptive_module_works_as_much_as_it_says():
    layer, where = moe(router="acm").eval(), LayerContext()
    layer.router.gate[-1].weight.data *= 50
    assert work_of(layer, where) == pytest.approx(4 * N * where.stats["0/compute"].item())
    assert 0 < where.stats["0/compute"] < 1
