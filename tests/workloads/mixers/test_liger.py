"""From a trained softmax transformer to gated linear attention, and back up by low-rank fine-tuning."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.workloads.mixers.support import WIDTH
from workloads import build_model
from workloads.mixers.liger import Liger, convert
from workloads.mixers.options.attention import Liger as Options
from workloads.mixers.parts import LowRankUpdate


def trained(model: nn.Module, tokens: torch.Tensor, steps: int) -> float:
    """The loss after some steps of Adam on one batch."""
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        loss = F.cross_entropy(model(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return loss.item()


def test_conversion_and_fine_tuning_bring_the_loss_back():
    torch.manual_seed(0)
    model = build_model({"model": {"d_model": WIDTH, "n_layers": 2, "mixer": "attention"}})
    # a sequence repeated: predicting the second half needs memory over 24 steps, more than the window of 8
    tokens = torch.randint(20, (4, 24), generator=torch.Generator().manual_seed(0)).repeat(1, 2)
    before = trained(model, tokens, 60)
    frozen = {name: p.detach().clone() for name, p in model.named_parameters()}
    convert(model, Options(window=8, rank=4))
    assert sum(isinstance(module, Liger) for module in model.modules()) == 2
    converted = trained(model, tokens, 1)
    tuned = trained(model, tokens, 40)
    assert converted > before
    assert tuned < converted
    now = dict(model.named_parameters())
    assert all(torch.equal(value, now[name]) for name, value in frozen.items())
    assert sum(p.numel() for p in now.values() if p.requires_grad) < 0.2 * sum(p.numel() for p in frozen.values())


def test_a_fresh_update_changes_nothing():
    torch.manual_seed(0)
    base = nn.Linear(6, 4)
    x = torch.randn(3, 6)
    assert torch.equal(base(x), LowRankUpdate(base, rank=2, alpha=16.0)(x))


def test_a_model_without_attention_is_refused():
    model = build_model({"model": {"d_model": WIDTH, "mixer": "gru"}})
    with pytest.raises(ValueError, match="needs a model with mixers `attention`"):
        convert(model, Options())
