"""Dense and dense-to-sparse gates: limits of the temperature, sampling, and the KAN gate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from tests.workloads.routers.zoo import D, N, matrix, moe, route, router, tokens
from workloads.routers.dense import annealed, gumbel_like
from workloads.routers.kan import KAN
from workloads.slots import for_each_router

E = 5


def test_a_cold_gumbel_gate_is_one_hot_with_the_softmax_s_frequencies():
    built, x = router("gumbel", E, temperature=1e-4), tokens(1).expand(20_000, D)
    weight = matrix(route(built, x), 20_000, E)
    assert (weight.max(1).values > 0.99).float().mean() > 0.99
    expected = built.gate(x[:1]).softmax(-1)[0]
    torch.testing.assert_close(weight.mean(0), expected, rtol=0, atol=0.012)


def test_a_hot_gumbel_gate_is_uniform():
    weight = matrix(route(router("gumbel", E, temperature=1e5), tokens()), N, E)
    torch.testing.assert_close(weight, torch.full((N, E), 1 / E), rtol=0, atol=1e-3)


def test_the_variance_of_the_evaluation_s_mean_falls_as_one_over_the_samples():
    z = torch.randn(1, E).expand(4000, E)
    variance = {}
    for samples in (1, 16):
        mean = torch.stack([(z + gumbel_like(z)).softmax(-1) for _ in range(samples)]).mean(0)
        variance[samples] = mean.var(0).sum().item()
    assert variance[1] / variance[16] == pytest.approx(16, rel=0.2)


def test_evaluation_draws_the_same_noise_each_time_and_leaves_training_s_alone():
    built = router("gumbel", E, train=False)
    state = torch.get_rng_state()
    one, two = built(tokens()).weight, built(tokens()).weight
    assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_temperature_of_one_without_threshold_is_the_soft_mixture():
    built, x = router("temperature_dense_to_sparse", E, mode="fixed", threshold=0.0), tokens()
    torch.testing.assert_close(matrix(route(built, x), N, E), built.gate(x).softmax(-1))


@pytest.mark.parametrize("name", ["activation_dense_to_sparse"])
def test_without_a_non_linearity_it_is_the_soft_mixture(name):
    built, x = router(name, E, activation="identity", threshold=0.0), tokens()
    torch.testing.assert_close(matrix(route(built, x), N, E), built.gate(x).softmax(-1))


def test_the_non_linearity_acts_on_the_linear_part_alone():
    built, x = router("activation_dense_to_sparse", E, activation="tanh", temperature=2.0, threshold=0.0), tokens()
    z = ((x @ built.gate.weight.t()).tanh() + built.gate.bias) / 2
    torch.testing.assert_close(matrix(route(built, x), N, E), z.softmax(-1))


def test_an_annealed_gate_becomes_sparse():
    built = router("temperature_dense_to_sparse", E, mode="annealed", end_temperature=0.01)
    used = []
    for step in (0, 5, 10):
        built.set_progress(step, 10)
        used.append(len(route(built, tokens()).token))
    assert used[0] == E * N > used[1] > used[2]


def test_annealing_is_monotone_and_stays_at_its_end():
    for schedule in ("exponential", "linear"):
        values = [annealed(2.0, 0.3, t, schedule) for t in (-1.0, 0.0, 0.5, 1.0, 3.0)]
        assert values[0] == values[1] == 2.0
        assert 0.3 < values[2] < 2.0
        assert values[3] == values[4] == pytest.approx(0.3)


def evomoe(step: int, **options):
    built = router("dense_to_sparse", E, **options)
    built.set_progress(step, 100)
    return built


def test_evomoe_begins_with_one_expert():
    assert set(route(evomoe(5), tokens()).expert.tolist()) == {0}


def test_evomoe_is_soft_in_the_middle_and_top_one_without_capacity_at_the_end():
    soft = route(evomoe(11), tokens())
    assert len(soft.token) > 2 * N
    hard = evomoe(60)
    switch = router("switch", E, capacity_factor=0.0, jitter=0.0)
    switch.gate.load_state_dict(hard.gate.state_dict())
    assert torch.equal(matrix(route(hard, tokens()), N, E), matrix(route(switch, tokens()), N, E))


def test_evomoe_s_loss_is_e_when_uniform_and_one_when_top_one():
    built = evomoe(11, start_temperature=1e6, balance_weight=1.0)
    assert route(built, tokens()).aux_losses["balance"].item() == pytest.approx(E, rel=1e-3)


def test_evomoe_uses_fewer_experts_as_the_temperature_falls():
    used = [len(route(evomoe(step, end_temperature=0.05), tokens()).token) for step in (10, 30, 50)]
    assert used[0] > used[1] > used[2] >= N


def test_experts_are_masked_copies_of_the_first_after_the_first_phase():
    layer = moe("dense_to_sparse", E, mask=0.25)
    first = layer.experts.up[0].clone()
    for step in (0, 9):
        for_each_router(layer, lambda part, step=step: part.set_progress(step, 100))
        assert not torch.equal(layer.experts.up[1], first)
    for_each_router(layer, lambda part: part.set_progress(10, 100))
    copies = layer.experts.up[1:]
    assert ((copies == first) | (copies == 0)).all()
    assert (copies == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)
    assert not torch.equal(copies[0], copies[1])
    layer.experts.up.data.zero_()
    for_each_router(layer, lambda part: part.set_progress(11, 100))
    assert (layer.experts.up == 0).all(), "copied once only"


@pytest.mark.parametrize(("grid", "order"), [(5, 3), (3, 2), (4, 1)])
def test_splines_of_a_kan_layer_are_scipys_and_vanish_far_outside_the_grid(grid, order):
    layer = KAN(1, 2, grid=grid, order=order, reach=3.0)
    x = torch.linspace(-2.999, 2.999, 60, dtype=torch.float64)
    spacing = 6.0 / grid
    knots = np.arange(-order, grid + order + 1) * spacing - 3.0
    expected = BSpline.design_matrix(x.numpy(), knots, order).toarray()
    torch.testing.assert_close(layer.splines(x[:, None])[:, 0], torch.from_numpy(expected))
    torch.testing.assert_close(layer.splines(x[:, None]).sum(-1), torch.ones(60, 1, dtype=torch.float64))
    far = torch.tensor([[-3.0 - (order + 0.1) * spacing], [3.0 + (order + 0.1) * spacing], [99.0], [-99.0]])
    assert (layer.splines(far) == 0).all()
    near = torch.linspace(-3.0 - order * spacing, 3.0 + order * spacing, 50).double()[:, None].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer.double().splines(x + 1e-4), (near,))


def test_without_its_value_branch_the_kan_gate_is_the_normalised_skip():
    built, x = router("grkan", E, train=False), tokens()
    built.value.weight.data.zero_()
    built.value.bias.data.zero_()
    expected = built.norm(built.skip(x)).softmax(-1)
    torch.testing.assert_close(matrix(route(built, x), N, E), expected)


@pytest.mark.parametrize("gate", ["grkan", "grn", "linear"])
def test_every_gate_network_gives_a_distribution(gate):
    weight = matrix(route(router("grkan", E, gate=gate), tokens()), N, E)
    torch.testing.assert_close(weight.sum(1), torch.ones(N))
