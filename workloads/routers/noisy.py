"""Noisy top-k gating and the smooth load that its noise makes possible. Shapes: N tokens, D width, E experts."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import moe_route
from workloads.routers.base import Gate, GateRouter, token_choice
from workloads.routers.losses import cv_squared
from workloads.routers.options import token_choice as configs
from workloads.slots import LayerContext, Routing

STD_FLOOR = 1e-2


class NoisyTopK(GateRouter):
    """Top-k of W_g x + ε ⊙ std(x) (arXiv:1701.06538, eq. 3-5), importance and load losses (eq. 6-11)."""

    def __init__(self, d_model: int, num_experts: int, chosen: configs.NoisyTopK) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.k = self.active_experts = min(chosen.k, num_experts)
        self.gate = Gate(d_model, num_experts, std=0.0)
        self.noise_gate = Gate(d_model, num_experts, std=0.0)

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N·k assignments."""
        clean = self.gate(x)
        std = F.softplus(self.noise_gate(x)) + STD_FLOOR
        noisy = clean + torch.randn_like(clean) * std if self.training else clean
        index, weight, _ = moe_route(noisy, self.k, renormalize=self.k > 1)
        losses = {}
        if self.options.importance_weight:
            importance = torch.zeros_like(noisy).scatter(1, index, weight).sum(0)
            losses["importance"] = self.options.importance_weight * cv_squared(importance)
        if self.options.load_weight and self.training and self.k < self.num_experts:
            load = stay_probability(clean, noisy, std, self.k).sum(0)
            losses["load"] = self.options.load_weight * cv_squared(load)
        return token_choice(
            index,
            weight,
            aux_losses=losses,
            stats={"noise_std": std.detach().mean()},
            probs=noisy.detach().softmax(-1),
        )


def stay_probability(clean: Tensor, noisy: Tensor, std: Tensor, k: int) -> Tensor:
    """P[t, e] that e is among the k largest when only its own noise is drawn again (arXiv:1701.06538, eq. 8-9).

    The k-th largest of the others is the (k+1)-th of all for a chosen expert, and the k-th for any other.

    Args: clean, noisy, std [N, E], k < E. Returns [N, E], differentiable in all three.
    """
    top, index = noisy.topk(k + 1, dim=-1)
    chosen = torch.zeros_like(noisy, dtype=torch.bool).scatter(1, index[:, :k], True)
    threshold = torch.where(chosen, top[:, k : k + 1], top[:, k - 1 : k])
    return 0.5 * (1 + torch.erf((clean - threshold) / (std * math.sqrt(2))))
