"""The token-level gate over whole specialists, and over the experts of a layer."""

from __future__ import annotations

import copy

import pytest
import torch

from workloads import build_feedforward
from workloads.config import ModelConfig
from workloads.fusion import FusedModel
from workloads.shell import SequenceModel
from workloads.slots import LayerContext, for_each_router
from workloads.tasks.base import Signature

D, V = 8, 32


def specialist(seed: int, d_model: int = D) -> SequenceModel:
    torch.manual_seed(seed)
    config = ModelConfig(d_model=d_model, n_layers=1, mixer={"name": "mingru"})
    return SequenceModel(config, Signature(vocab_size=V, outputs=V, sequence_length=6))


def ids(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, V, (2, 6), generator=torch.Generator().manual_seed(seed))


def test_equal_specialists_change_nothing():
    one = specialist(0)
    fused = FusedModel([one, copy.deepcopy(one)])
    fused.gate.gamma.data.normal_()
    torch.testing.assert_close(fused(ids()).logits, one(ids()).logits)


def test_a_gate_of_zero_is_the_mean_of_the_logits():
    models = [specialist(seed) for seed in range(3)]
    expected = sum(model(ids()).logits for model in models) / 3
    torch.testing.assert_close(FusedModel(models)(ids()).logits, expected)


def test_a_specialist_far_below_is_removed():
    models = [specialist(seed) for seed in range(2)]
    fused = FusedModel(models, FusedModel(models).gate.options.__class__(shared_gate=False))
    fused.gate.weigh = lambda h: torch.tensor([0.0, -torch.inf]).softmax(-1).expand(*h.shape[:-1])
    torch.testing.assert_close(fused(ids()).logits, models[0](ids()).logits)


def test_stage_one_trains_the_gate_alone_and_stage_two_all():
    fused = FusedModel([specialist(seed) for seed in range(2)])
    fused(ids()).logits.square().sum().backward()
    assert fused.gate.gamma.grad.abs().sum() > 0
    assert all(p.grad is None for p in fused.specialists.parameters())
    fused.thaw()
    fused(ids()).logits.square().sum().backward()
    assert all(p.grad is not None for p in fused.specialists.parameters())


def test_the_gate_learns_which_specialist_is_right():
    torch.manual_seed(0)
    models = [specialist(seed) for seed in range(2)]
    fused = FusedModel(models)
    # Far apart, so that one of them explains the targets
    for model in models:
        model.head.weight.data *= 50
    targets = models[1](ids()).logits.argmax(-1)
    optimizer = torch.optim.Adam([fused.gate.gamma], lr=0.1)
    for _ in range(40):
        output = fused(ids())
        loss = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert output.stats["gate/1"] > 0.8


def test_a_sequence_continues_from_its_state():
    fused = FusedModel([specialist(seed) for seed in range(2)])
    whole = fused(ids()).logits
    first = fused(ids()[:, :4])
    rest = fused(ids()[:, 4:], first.state)
    torch.testing.assert_close(torch.cat([first.logits, rest.logits], 1), whole)


def test_specialists_must_fit_together():
    with pytest.raises(ValueError, match="must share d_model"):
        FusedModel([specialist(0), specialist(0, d_model=16)])


def test_the_layer_s_gate_reads_what_its_experts_made():
    torch.manual_seed(0)
    layer = build_feedforward("moe", D, num_experts=3, expert_hidden=8, router="token_fusion")
    layer.router.gamma.data.normal_()
    x = torch.randn(2, 6, D)
    outputs, _ = layer.each(x.flatten(0, 1))
    normal = torch.nn.functional.rms_norm(outputs, (D,))
    weight = (normal @ layer.router.gamma[0]).softmax(-1)
    torch.testing.assert_close(layer(x).flatten(0, 1), (weight[..., None] * outputs).sum(1), rtol=1e-4, atol=1e-6)


def test_experts_rest_in_the_first_stage():
    torch.manual_seed(0)
    layer = build_feedforward("moe", D, num_experts=3, router={"name": "token_fusion", "gate_only": 0.5})
    x = torch.randn(2, 6, D)
    for step, learns in ((0, False), (5, True)):
        for_each_router(layer, lambda part, step=step: part.set_progress(step, 10))
        layer.zero_grad()
        layer(x, LayerContext()).square().sum().backward()
        assert (layer.experts.up.grad.abs().sum() > 0) == learns
        assert layer.router.gamma.grad.abs().sum() > 0
