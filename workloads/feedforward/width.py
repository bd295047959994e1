"""Width and initialisation that all feed-forwards share, so that they compare."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def default_hidden(d_model: int, *, gated: bool) -> int:
    """Hidden width of a dense layer: 4 D, or 8/3 D for a gated one (equal parameters), up to a multiple of 8."""
    return -(-8 * d_model // 3 // 8) * 8 if gated else 4 * d_model


def expert_hidden(d_model: int, active_experts: float, *, gated: bool) -> int:
    """Hidden width of one of `active_experts` active experts that together are as wide as a dense layer."""
    return max(1, round(default_hidden(d_model, gated=gated) / active_experts))


def matrix(*shape: int, scale: float = 1 / 3) -> nn.Parameter:
    """Weights [..., fan-in, fan-out], truncated normal of variance scale / fan-in.

    Source: Switch Transformers, arXiv:2101.03961, sec. 2.4, where a scale of 0.1 stabilises sparse layers.
    """
    weight: Tensor = torch.empty(*shape)
    std = (scale / shape[-2]) ** 0.5
    return nn.Parameter(nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std))
