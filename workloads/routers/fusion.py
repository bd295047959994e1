"""The token-level gate over what specialists made. Shapes: N tokens, S specialists (the experts), D width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.routers.base import every_expert
from workloads.routers.options.fusion import TokenFusion as Options
from workloads.routers.schedule import ScheduledRouter
from workloads.slots import LayerContext, Routing


class TokenFusion(ScheduledRouter):
    """w = softmax_s(γ(h_s)) (arXiv:2403.08281, eq. 2-3)."""

    reads_outputs = True

    def __init__(self, d_model: int, num_experts: int, chosen: Options) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.active_experts = num_experts
        self.gamma = nn.Parameter(torch.zeros(1 if chosen.shared_gate else num_experts, d_model))

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D], read in place of the outputs where no layer has left them. Returns N·S assignments."""
        outputs = context.carry.pop("expert_outputs", None)
        h = x[:, None].expand(-1, self.num_experts, -1) if outputs is None else outputs.to(x.dtype)
        weight = self.weigh(h)
        self.experts_rest = self.progress < self.options.gate_only
        stats = {"gate_peak": weight.detach().max(-1).values.mean()}
        return every_expert(weight, stats=stats, probs=weight.detach())

    def weigh(self, h: Tensor) -> Tensor:
        """Weights [N, S] of the specialists' hidden states. Args: h [N, S, D]."""
        h = F.rms_norm(h, h.shape[-1:]) if self.options.normalize else h
        return (h * self.gamma.to(h.dtype)).sum(-1).softmax(-1)
