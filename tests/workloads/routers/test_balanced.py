"""DeepSeekMoE's shared experts and losses; the bias that balances without a loss."""

from __future__ import annotations

import pytest
import torch

from tests.workloads.routers.zoo import D, N, context, matrix, route, router, tokens
from workloads import build_feedforward
from workloads.feedforward.width import default_hidden
from workloads.slots import for_each_router

E = 8


def test_shared_experts_serve_every_token_with_weight_one():
    weight = matrix(route(router("deepseek_moe", E, shared=2, k=3), tokens()), N, E)
    assert (weight[:, :2] == 1).all()
    assert ((weight[:, 2:] != 0).sum(1) == 3).all()


def test_routed_weights_are_probabilities_among_the_routed_alone():
    built, x = router("deepseek_moe", E, shared=2, k=3), tokens()
    p = built.gate(x).softmax(-1)
    expected = torch.zeros_like(p).scatter(1, p.topk(3).indices, p.topk(3).values)
    torch.testing.assert_close(matrix(route(built, x), N, E)[:, 2:], expected)


def test_without_splitting_and_sharing_it_is_unnormalised_top_k():
    built, top = router("deepseek_moe", E, shared=0, k=2), router("topk", E, k=2, renormalize=False)
    top.gate.load_state_dict(built.gate.state_dict())
    assert torch.equal(matrix(route(built, tokens()), N, E), matrix(route(top, tokens()), N, E))


def test_splitting_keeps_parameters_and_active_width():
    sizes = set()
    for m in (1, 2, 4):
        layer = build_feedforward(
            "moe", 48, num_experts=4 * m, router={"name": "deepseek_moe", "shared": 1, "k": 2 * m - 1}
        )
        sizes.add((layer.experts.up.numel(), layer.experts.hidden * layer.router.active_experts))
    assert sizes == {(4 * 48 * default_hidden(48, gated=True) // 2, default_hidden(48, gated=True))}


def test_the_loss_of_a_balanced_router_is_its_weight():
    built = router("deepseek_moe", E, shared=0, k=E, expert_balance=0.25)
    built.gate.weight.data.zero_()
    assert route(built, tokens()).aux_losses["balance"].item() == pytest.approx(0.25)


def test_the_device_loss_is_the_sum_over_groups():
    built, x = router("deepseek_moe", E, shared=0, k=2, device_balance=1.0, devices=4), tokens()
    p = built.gate(x).softmax(-1)
    load = E / (2 * N) * torch.bincount(p.topk(2).indices.flatten(), minlength=E)
    expected = sum(load[i : i + 2].mean() * p.mean(0)[i : i + 2].sum() for i in range(0, E, 2))
    torch.testing.assert_close(route(built, x).aux_losses["device_balance"], expected)


def test_devices_must_divide_the_routed_experts():
    with pytest.raises(ValueError, match="must divide the 7 routed experts"):
        router("deepseek_moe", E, devices=2)


def test_the_bias_moves_the_choice_and_not_the_weights():
    built, x = router("loss_free", E), tokens()
    before = route(built, x)
    built.bias += 3.0
    assert torch.equal(matrix(before, N, E), matrix(route(built, x), N, E))
    built.bias[5] += 10.0
    after = matrix(route(built, x), N, E)
    torch.testing.assert_close(after[:, 5], built.gate(x).sigmoid()[:, 5])


def test_the_bias_follows_the_sign_of_the_load_of_the_whole_step():
    built = router("loss_free", E, update_rate=0.5)
    parts = [route(built, tokens(seed=seed)) for seed in (1, 2)]
    load = sum(torch.bincount(part.expert, minlength=E) for part in parts)
    built.after_step()
    assert torch.equal(built.bias, 0.5 * (load.float().mean() - load).sign())
    unchanged = built.bias.clone()
    built.after_step()
    assert torch.equal(built.bias, unchanged)


def test_an_even_load_leaves_the_bias_alone():
    built = router("loss_free", E, k=E)
    route(built, tokens())
    built.after_step()
    assert (built.bias == 0).all()


def test_evaluation_neither_counts_nor_moves():
    built = router("loss_free", E, train=False)
    route(built, tokens())
    built.after_step()
    assert (built.bias == 0).all()


def test_a_frozen_gate_is_balanced_by_the_bias_alone():
    built = router("loss_free", E, update_rate=0.01)
    loads = []
    for step in range(300):
        loads.append(torch.bincount(route(built, tokens(128, seed=step) + 1).expert, minlength=E).float())
        built.after_step()

    def max_violation(window: list[torch.Tensor]) -> float:
        total = torch.stack(window).sum(0)
        return float(total.max() / total.mean() - 1)

    assert max_violation(loads[:20]) > 0.3
    assert max_violation(loads[-100:]) < 0.1


def test_the_bias_rests_in_the_last_share_of_the_training():
    built = router("loss_free", E, freeze=0.2)
    built.set_progress(8, 10)
    route(built, tokens())
    built.after_step()
    assert (built.bias == 0).all()


def test_only_the_best_groups_are_open():
    built, x = router("loss_free", E, k=2, groups=4, keep_groups=1), tokens()
    pairs = route(built, x).expert.view(N, 2) // 2
    assert (pairs[:, 0] == pairs[:, 1]).all()
    strength = built.gate(x).sigmoid().view(N, 4, 2).sum(-1)
    assert torch.equal(pairs[:, 0], strength.argmax(-1))


def test_the_sequence_loss_of_even_sequences_is_its_weight():
    built = router("loss_free", E, k=E, sequence_weight=0.5)
    built.gate.weight.data.zero_()
    assert route(built, tokens(), context()).aux_losses["sequence_balance"].item() == pytest.approx(0.5)


def test_the_trainers_hooks_reach_the_bias():
    torch.manual_seed(0)
    layer = build_feedforward("moe", D, num_experts=E, router={"name": "loss_free", "update_rate": 1.0})
    layer(tokens().view(3, 12, D))
    for_each_router(layer, lambda part: part.after_step())
    assert layer.router.bias.abs().max() == 1
