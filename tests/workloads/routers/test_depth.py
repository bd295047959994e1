"""Mixture-of-Depths, adaptive computation, sparse modular activation."""

from __future__ import annotations

import pytest
import torch

from tests.workloads.routers.zoo import BATCH, TIME, D, N, context, matrix, moe, route, router, tokens
from workloads.feedforward.dense import Dense
from workloads.feedforward.options.dense import Dense as DenseOptions


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_exactly_the_capacity_of_each_sequence_is_served_and_the_rest_unchanged(share):
    layer = moe("mixture_of_depths", 1, capacity=share)
    y = layer(tokens().view(BATCH, TIME, D), context())
    served = (y.abs().sum(-1) > 0).sum(1)
    assert served.tolist() == [share * TIME] * BATCH


def test_the_served_tokens_are_those_of_largest_score():
    built, x = router("mixture_of_depths", 1, capacity=0.25), tokens()
    r = (x @ built.score).view(BATCH, TIME)
    expected = (r.topk(3, dim=1).indices + torch.arange(BATCH)[:, None] * TIME).flatten()
    routing = route(built, x, context())
    assert set(routing.token.tolist()) == set(expected.tolist())
    torch.testing.assert_close(routing.weight, r.flatten()[routing.token])


def test_full_capacity_is_the_dense_layer_scaled_by_the_score():
    layer, x = moe("mixture_of_depths", 1, capacity=1.0), tokens()
    one = Dense(D, DenseOptions(hidden=8))
    one.gate.data, one.up.data, one.down.data = (
        getattr(layer.experts, part).data[0] for part in ("gate", "up", "down")
    )
    y = layer(x.view(BATCH, TIME, D), context()).view(N, D)
    torch.testing.assert_close(y, (x @ layer.router.score)[:, None] * one(x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("predictor", ["mlp", "aux"])
def test_the_predictor_learns_who_is_served(predictor):
    built = router("mixture_of_depths", 1, capacity=0.25, predictor=predictor, predictor_weight=1.0)
    optimizer = torch.optim.Adam(built.parameters(), lr=0.05)
    accuracy = []
    for step in range(120):
        routing = route(built, tokens(48 * 8, seed=step), context(8, 48))
        optimizer.zero_grad()
        routing.aux_losses["predictor"].backward()
        optimizer.step()
        accuracy.append(routing.stats["predictor_accuracy"].item())
    assert sum(accuracy[-5:]) / 5 > 0.85
    served = route(built.eval(), tokens(48 * 8, seed=99), context(8, 48)).stats["served_frac"]
    assert served.item() == pytest.approx(0.25, abs=0.12)


def test_the_predictor_leaves_the_model_alone():
    built = router("mixture_of_depths", 1)
    x = tokens().requires_grad_()
    route(built, x, context()).aux_losses["predictor"].backward()
    assert x.grad is None
    assert built.score.grad is None


def test_evaluation_serves_nobody_where_nobody_is_expected():
    layer = moe("mixture_of_depths", 4).eval()
    layer.router.predictor[-1].bias.data.fill_(-100.0)
    where = context()
    assert (layer(tokens().view(BATCH, TIME, D), where) == 0).all()
    assert all(value.isfinite() for value in where.stats.values())


E = 4


def test_the_gated_output_is_the_chosen_prefix_of_the_learners_in_both_modes():
    for train in (True, False):
        layer, x = moe("acm", E).train(train), tokens()
        layer.router.gate[-1].weight.data *= 50
        routing = route(layer.router, x, context())
        number = (matrix(routing, N, E) != 0).sum(1)
        assert len(set(number.tolist())) > 2
        outputs, _ = layer.each(x)
        prefixes = torch.cat([torch.zeros(N, 1, D), outputs.cumsum(1)], dim=1)
        mixed, _ = layer.mix(x, routing)
        torch.testing.assert_close(mixed, prefixes[torch.arange(N), number], rtol=1e-4, atol=1e-6)


def test_evaluation_runs_as_many_learners_as_the_gate_says():
    built, x = router("acm", E, train=False), tokens()
    number = built.gate(x).argmax(-1)
    assert len(route(built, x).token) == number.sum()


def test_the_budget_is_the_distance_of_the_mean_to_the_target():
    built, x = router("acm", E, target=0.25, budget_weight=1.0), tokens()
    routing = route(built, x, context())
    compute = routing.weight.detach().round().sum() / (N * E)
    torch.testing.assert_close(routing.aux_losses["budget"], (compute - 0.25).abs())
    assert routing.aux_losses["budget"].requires_grad


def test_one_learner_is_a_gate_that_skips_tokens():
    routing = route(router("acm", 1, train=False), tokens())
    assert 0 < len(routing.token) < N


def test_switches_are_on_where_their_second_logit_is_larger():
    built, x = router("sma", E), tokens()
    u = built.gate(x).view(N, E, 2)
    p = (u / built.log_temperature.exp()).softmax(-1)[..., 1]
    torch.testing.assert_close(matrix(route(built, x), N, E), p * (p > 0.5))


def test_switches_forced_on_and_off():
    layer, x = moe("sma", E), tokens().abs()
    layer.router.gate.weight.data.zero_()
    layer.router.gate.weight.data[1::2] = 1.0
    routing = route(layer.router, x)
    assert len(routing.token) == E * N
    layer.router.gate.weight.data *= -1
    assert (layer(x.view(BATCH, TIME, D), context()) == 0).all()
