"""The same weights in, the same choices, outputs, losses and gradients out, as the MoE blocks of `transformers`."""

from __future__ import annotations

import pytest
import torch

from tests.workloads.routers.zoo import BATCH, TIME, D, N, context, matrix, route, router, tokens
from workloads import build_feedforward
from workloads.routers.losses import balance, z_loss
from workloads.routers.sparsemixer import multiplier

pytest.importorskip("transformers")

from transformers import (
    DeepseekV2Config,
    DeepseekV3Config,
    MixtralConfig,
    NllbMoeConfig,
    OlmoeConfig,
    SwitchTransformersConfig,
)
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func
from transformers.models.nllb_moe.modeling_nllb_moe import NllbMoeTop2Router
from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock
from transformers.models.phimoe.modeling_phimoe import PhimoeMultiplier, sparsemixer
from transformers.models.switch_transformers import modeling_switch_transformers as switch_transformers

E, H = 6, 8


def as_matrix(index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.zeros(N, E).scatter(1, index.view(N, -1), weight.view(N, -1))


def a_block(block, gate_weight):
    """Random weights in one of their blocks, and our mixture with the same ones."""
    torch.manual_seed(0)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = build_feedforward(
        "moe",
        D,
        num_experts=E,
        expert_hidden=H,
        router={"name": "topk", "k": 2, "renormalize": gate_weight == "renormalised", "balance_weight": 1.0},
    )
    with torch.no_grad():
        ours.router.gate.weight.copy_(block.gate.weight)
        gate, up = block.experts.gate_up_proj.chunk(2, dim=1)
        ours.experts.gate.copy_(gate.transpose(1, 2))
        ours.experts.up.copy_(up.transpose(1, 2))
        ours.experts.down.copy_(block.experts.down_proj.transpose(1, 2))
    return ours


@pytest.mark.parametrize("family", ["mixtral", "olmoe"])
def test_whole_blocks_agree_in_output_loss_and_gradients(family):
    if family == "mixtral":
        config = MixtralConfig(hidden_size=D, intermediate_size=H, num_local_experts=E, num_experts_per_tok=2)
        theirs, kind = MixtralSparseMoeBlock(config), "renormalised"
    else:
        config = OlmoeConfig(
            hidden_size=D, intermediate_size=H, num_experts=E, num_experts_per_tok=2, norm_topk_prob=False
        )
        theirs, kind = OlmoeSparseMoeBlock(config), "plain"
    ours = a_block(theirs, kind)
    x, where = tokens().view(BATCH, TIME, D), context()
    y = ours(x, where)
    expected = theirs(x)
    expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    logits = theirs.gate(x)[0]
    torch.testing.assert_close(where.losses["0/balance"], load_balancing_loss_func((logits,), E, 2))
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.router.gate.weight.grad, theirs.gate.weight.grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        ours.experts.down.grad, theirs.experts.down_proj.grad.transpose(1, 2), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_switch_drops_the_same_tokens_and_has_the_same_losses(factor):
    ours = router("switch", E, capacity_factor=factor, min_capacity=1, jitter=0.0, balance_weight=1.0, z_weight=1.0)
    config = SwitchTransformersConfig(
        hidden_size=D, num_experts=E, expert_capacity=int(factor * TIME / E), router_jitter_noise=0.0
    )
    theirs = switch_transformers.SwitchTransformersTop1Router(config)
    theirs.classifier.weight.data.copy_(ours.gate.weight)
    x = tokens()
    mask, weight, logits = theirs(x.view(BATCH, TIME, D))
    routing = route(ours, x, context())
    torch.testing.assert_close(matrix(routing, N, E), (mask * weight).view(N, E))
    torch.testing.assert_close(routing.aux_losses["z"], switch_transformers.router_z_loss_func(logits))
    torch.testing.assert_close(z_loss(logits.flatten(0, 1)), switch_transformers.router_z_loss_func(logits))
    probs = logits.softmax(-1)
    # Theirs is the mean over sequences of each sequence's loss
    expected = switch_transformers.load_balancing_loss_func(probs, probs.argmax(-1))
    per_sequence = [balance(p, p.argmax(-1)) for p in probs]
    torch.testing.assert_close(torch.stack(per_sequence).mean(), expected)


def test_the_whole_switch_block_agrees_in_output_and_gradients_with_tokens_dropped():
    config = SwitchTransformersConfig(
        hidden_size=D, d_ff=H, num_experts=E, expert_capacity=TIME // E, router_jitter_noise=0.0, dropout_rate=0.0
    )
    torch.manual_seed(0)
    theirs = switch_transformers.SwitchTransformersSparseMLP(config)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    router = {"name": "switch", "capacity_factor": 1.0, "jitter": 0.0}
    ours = build_feedforward("moe", D, num_experts=E, expert_hidden=H, activation="relu", router=router)
    blocks = [theirs.experts[f"expert_{e}"] for e in range(E)]
    ours.router.gate.weight.data.copy_(theirs.router.classifier.weight)
    ours.experts.up.data.copy_(torch.stack([block.wi.weight.t() for block in blocks]))
    ours.experts.down.data.copy_(torch.stack([block.wo.weight.t() for block in blocks]))
    x, where = tokens().view(BATCH, TIME, D), context()
    y, expected = ours(x, where), theirs(x)
    assert where.stats["0/drop_frac"] > 0
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    y.square().sum().backward()
    expected.square().sum().backward()
    gradients = torch.stack([block.wi.weight.grad.t() for block in blocks])
    torch.testing.assert_close(ours.router.gate.weight.grad, theirs.router.classifier.weight.grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours.experts.up.grad, gradients, rtol=1e-3, atol=1e-3)


def test_deepseek_s_whole_block_agrees_shared_experts_included():
    """Their one shared network of two experts' width is our two shared experts side by side."""
    config = DeepseekV2Config(
        hidden_size=D,
        moe_intermediate_size=H,
        n_routed_experts=E,
        num_experts_per_tok=2,
        n_shared_experts=2,
        num_attention_heads=1,
        topk_method="greedy",
        routed_scaling_factor=1.0,
    )
    theirs = DeepseekV2Moe(config)
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    router = {"name": "deepseek_moe", "shared": 2, "k": 2}
    ours = build_feedforward("moe", D, num_experts=E + 2, expert_hidden=H, router=router)
    gate, up = theirs.experts.gate_up_proj.transpose(1, 2).chunk(2, dim=2)
    routed = {"gate": gate, "up": up, "down": theirs.experts.down_proj.transpose(1, 2)}
    shared = theirs.shared_experts
    beside = {
        "gate": shared.gate_proj.weight.view(2, H, D).transpose(1, 2),
        "up": shared.up_proj.weight.view(2, H, D).transpose(1, 2),
        "down": shared.down_proj.weight.t().reshape(2, H, D),
    }
    ours.router.gate.weight.data.copy_(theirs.gate.weight)
    for part in routed:
        getattr(ours.experts, part).data.copy_(torch.cat([beside[part], routed[part]]))
    x = tokens().view(BATCH, TIME, D)
    y, expected = ours(x, context()), theirs(x)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.router.gate.weight.grad, theirs.gate.weight.grad, rtol=1e-3, atol=1e-3)
    gradient = torch.cat(
        [shared.down_proj.weight.grad.t().reshape(2, H, D), theirs.experts.down_proj.grad.transpose(1, 2)]
    )
    torch.testing.assert_close(ours.experts.down.grad, gradient, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_nllb_top_two_agrees_with_capacity_in_every_order(before, prioritized):
    ours = router(
        "gshard",
        E,
        policy="all",
        group="batch",
        min_capacity=1,
        normalize_before_dropping=before,
        prioritized=prioritized,
    )
    config = NllbMoeConfig(
        hidden_size=D,
        num_experts=E,
        second_expert_policy="all",
        normalize_router_prob_before_dropping=before,
        batch_prioritized_routing=prioritized,
    )
    theirs = NllbMoeTop2Router(config)
    theirs.expert_capacity = None
    theirs.classifier.weight.data.copy_(ours.gate.weight)
    _, weight, _ = theirs(tokens())
    routing = route(ours, tokens())
    assert routing.stats["drop_frac"] > 0
    torch.testing.assert_close(matrix(routing, N, E), weight)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("groups", "kept"), [(1, 1), (3, 2)])
def test_deepseek_v3_gate_agrees_with_bias_and_groups(groups, kept, normalize):
    ours = router("loss_free", E, k=2, groups=groups, keep_groups=kept, renormalize=normalize, scale=2.5)
    ours.bias.copy_(torch.linspace(-0.2, 0.2, E))
    config = DeepseekV3Config(
        hidden_size=D,
        n_routed_experts=E,
        num_experts_per_tok=2,
        n_group=groups,
        topk_group=kept,
        norm_topk_prob=normalize,
        routed_scaling_factor=2.5,
    )
    theirs = DeepseekV3TopkRouter(config)
    theirs.weight.data.copy_(ours.gate.weight)
    theirs.e_score_correction_bias.copy_(ours.bias)
    _, weight, index = theirs(tokens())
    torch.testing.assert_close(matrix(route(ours, tokens()), N, E), as_matrix(index, weight))


def test_phimoe_s_sparsemixer_agrees_in_evaluation():
    ours, x = router("sparsemixer", E, k=2, r=0.1, train=False), tokens()
    weight, index = sparsemixer(ours.gate(x), 0.1, training=False)
    torch.testing.assert_close(matrix(route(ours, x), N, E), as_matrix(index, weight))


def test_phimoe_s_multiplier_has_the_same_gradient():
    z = torch.randn(N, E, requires_grad=True)
    drawn = torch.randint(E, (N, 1))
    is_one = torch.rand(N, 1) < 0.25
    masked = z.softmax(-1)
    ours = multiplier(masked.gather(1, drawn), is_one, "v2")
    scale = torch.add(0.3333, is_one, alpha=0.6667)
    theirs = PhimoeMultiplier.apply(z, masked.gather(1, drawn), drawn, masked.detach(), scale)
    # They write a third with four digits
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=1e-6)
    expected = torch.autograd.grad(theirs.sum(), z, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(ours.sum(), z)[0], expected, rtol=1e-5, atol=1e-6)
