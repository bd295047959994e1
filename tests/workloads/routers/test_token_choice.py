"""Top-k, noisy, adaptive and broadcast gates against their closed forms and special cases; the shared losses."""

from __future__ import annotations

import math

import pytest
import torch

from tests.workloads.routers.zoo import N, context, matrix, route, router, tokens
from workloads.routers.losses import balance, cv_squared, entropy, z_loss
from workloads.routers.noisy import stay_probability

E = 5


def test_renormalised_gates_are_a_softmax_over_the_kept_logits():
    built, x = router("topk", k=2), tokens(dtype=torch.float64)
    routing = route(built, x)
    kept = built.gate(x).gather(1, routing.expert.view(N, 2))
    torch.testing.assert_close(routing.weight.view(N, 2), kept.softmax(-1), rtol=1e-12, atol=1e-14)


def test_all_experts_unnormalised_are_the_soft_mixture():
    built, x = router("topk", k=E, renormalize=False), tokens()
    torch.testing.assert_close(matrix(route(built, x), N, E), built.gate(x).softmax(-1))


def test_one_expert_is_never_renormalised_so_that_its_gate_learns():
    routing = route(router("topk", k=1), tokens())
    assert (routing.weight < 1).all()


def test_renormalised_gates_teach_the_kept_logits_alone():
    built = router("topk", k=2, balance_weight=0.0)
    z = torch.randn(N, E, requires_grad=True)
    built.gate.forward = lambda x: z
    routing = route(built, tokens())
    routing.weight.pow(2).sum().backward()
    chosen = torch.zeros(N, E, dtype=torch.bool).scatter(1, routing.expert.view(N, 2), True)
    assert (z.grad[~chosen] == 0).all()
    assert (z.grad[chosen] != 0).any()


def test_ties_go_to_the_lowest_expert():
    built = router("topk", k=2)
    built.gate.weight.data.zero_()
    assert torch.equal(route(built, tokens()).expert.view(N, 2), torch.tensor([0, 1]).expand(N, 2))


@pytest.mark.parametrize("k", [1, 2])
def test_balance_is_k_when_uniform_and_e_when_all_go_to_one(k):
    probs = torch.full((20, E), 1 / E)
    even = torch.arange(20 * k).view(20, k) % E
    assert balance(probs, even).item() == pytest.approx(k)
    one = torch.zeros(20, E).index_fill(1, torch.tensor([0]), 1.0)
    assert balance(one, torch.zeros(20, 1, dtype=torch.int64)).item() == pytest.approx(E)


def test_z_loss_at_zero_logits_and_spread_of_even_loads():
    assert z_loss(torch.zeros(7, E)).item() == pytest.approx(math.log(E) ** 2)
    assert cv_squared(torch.ones(E)).item() == 0
    assert cv_squared(torch.tensor([1.0, 2.0, 3.0])).item() == pytest.approx(1 / 4)
    assert entropy(torch.full((3, E), 1 / E)).item() == pytest.approx(math.log(E), abs=1e-4)


def test_losses_survive_a_batch_without_tokens():
    none = torch.zeros(0, E)
    assert balance(none, torch.zeros(0, 1, dtype=torch.int64)).item() == 0
    assert z_loss(none).item() == 0


def kth_of_the_others(noisy: torch.Tensor, k: int) -> torch.Tensor:
    result = torch.empty_like(noisy)
    for e in range(noisy.shape[1]):
        others = torch.cat([noisy[:, :e], noisy[:, e + 1 :]], dim=1)
        result[:, e] = others.topk(k).values[:, -1]
    return result


def test_the_chance_to_stay_is_the_definition_and_what_redrawn_noise_gives():
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(4, E, generator=generator, dtype=torch.float64)
    std = torch.rand(4, E, generator=generator, dtype=torch.float64) + 0.2
    noisy = clean + std * torch.randn(4, E, generator=generator, dtype=torch.float64)
    threshold = kth_of_the_others(noisy, 2)
    chance = stay_probability(clean, noisy, std, 2)
    exact = torch.distributions.Normal(0.0, 1.0).cdf((clean - threshold) / std)
    torch.testing.assert_close(chance, exact, rtol=1e-12, atol=1e-14)
    redrawn = clean[..., None] + std[..., None] * torch.randn(4, E, 100_000, generator=generator, dtype=torch.float64)
    # Three standard deviations of a frequency over 1e5 draws are below 0.005
    torch.testing.assert_close((redrawn > threshold[..., None]).double().mean(-1), chance, rtol=0, atol=5e-3)


def test_noise_is_for_training_alone():
    built, x = router("noisy_topk"), tokens()
    assert not torch.equal(route(built, x, seed=1).weight, route(built, x, seed=2).weight)
    built.eval()
    assert torch.equal(route(built, x, seed=1).weight, route(built, x, seed=2).weight)


def test_a_negative_threshold_never_pairs_and_a_threshold_of_one_always_does():
    x = tokens()
    single = router("adaptive_gating", threshold=-0.1)
    p = single.gate(x).softmax(-1)
    routing = route(single, x)
    assert torch.equal(routing.expert, p.argmax(-1))
    torch.testing.assert_close(routing.weight, p.max(-1).values)
    pairs = router("adaptive_gating", threshold=1.0, weights="renormalized")
    both = router("topk", k=2)
    both.gate.load_state_dict(pairs.gate.state_dict())
    torch.testing.assert_close(matrix(route(pairs, x), N, E), matrix(route(both, x), N, E))


def test_the_mean_number_of_experts_is_one_and_the_share_of_undecided_tokens():
    built, x = router("adaptive_gating", threshold=0.2), tokens()
    top = built.gate(x).softmax(-1).topk(2).values
    undecided = (top[:, 0] - top[:, 1] <= 0.2).float().mean().item()
    assert 0 < undecided < 1
    assert len(route(built, x).token) / N == pytest.approx(1 + undecided)


def test_pairs_do_not_count_in_the_balance_of_single_tokens():
    built, x = router("adaptive_gating", threshold=0.2, balance_weight=1.0), tokens()
    p = built.gate(x).softmax(-1)
    top = p.topk(2).values
    alone = top[:, 0] - top[:, 1] > 0.2
    share = torch.bincount(p.argmax(-1)[alone], minlength=E) / alone.sum()
    torch.testing.assert_close(route(built, x).aux_losses["balance"], E * (share * p.mean(0)).sum())


def test_no_entropy_reaches_a_threshold_over_one():
    x, base = tokens(), router("topk")
    built = router("gw_moe", threshold=1.01)
    built.gate.load_state_dict(base.gate.state_dict())
    assert torch.equal(matrix(route(built, x, context()), N, E), matrix(route(base, x, context()), N, E))


def test_every_token_is_broadcast_at_threshold_zero_without_a_limit():
    built, x = router("gw_moe", threshold=0.0, slots=0), tokens()
    torch.testing.assert_close(matrix(route(built, x, context()), N, E), built.gate(x).softmax(-1))


def test_slots_limit_the_broadcast_to_the_first_tokens_of_each_sequence():
    built, x = router("gw_moe", threshold=0.0, slots=2, k=1), tokens()
    per_token = torch.bincount(route(built, x, context()).token).view(3, 12)
    assert torch.equal(per_token, torch.tensor([E, E, *[1] * 10]).expand(3, 12))


def test_broadcasting_waits_for_its_start():
    built = router("gw_moe", threshold=0.0, slots=0, start=0.5)
    built.set_progress(4, 10)
    assert len(route(built, tokens()).token) == 2 * N
    built.set_progress(5, 10)
    assert len(route(built, tokens()).token) == E * N
