"""Cosine routers of GMoE and XMoE. Shapes: N tokens, D width, R width of the comparison, E experts."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import moe_route
from workloads.routers.base import GateRouter, sequences
from workloads.routers.capacity import drop_fraction, with_room
from workloads.routers.losses import balance, cv_squared
from workloads.routers.noisy import stay_probability
from workloads.routers.options.common import Capacity
from workloads.routers.options.similarity import Cosine as Options
from workloads.slots import LayerContext, Routing

MAX_INVERSE_TEMPERATURE = 100.0
XMOE_NORM = 1.5
XMOE_GAIN = 0.32


class Cosine(GateRouter):
    """Top-k over similarities to expert embeddings (arXiv:2206.04046; arXiv:2204.09179, eq. 4-6)."""

    def __init__(self, d_model: int, num_experts: int, chosen: Options) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.k = self.active_experts = min(chosen.k, num_experts)
        self.is_gmoe = chosen.variant == "gmoe"
        width = chosen.width or (256 if self.is_gmoe else 16)
        self.project = nn.Linear(d_model, width, bias=self.is_gmoe)
        embeddings = torch.empty(num_experts, width)
        start = nn.init.normal_(embeddings, std=0.01) if self.is_gmoe else nn.init.orthogonal_(embeddings, XMOE_GAIN)
        self.embeddings = nn.Parameter(start)
        self.log_inverse_temperature = nn.Parameter(torch.tensor(-math.log(chosen.temperature)))
        self.room = Capacity(
            capacity_factor=chosen.capacity_factor,
            eval_capacity_factor=chosen.eval_capacity_factor,
            min_capacity=chosen.min_capacity,
            group=chosen.group,
        )

    def logits(self, x: Tensor) -> Tensor:
        """Args: x [N, D]. Returns z [N, E]."""
        token = self.project(x)
        token = F.normalize(token, dim=-1) if self.is_gmoe else token
        sharpness = self.log_inverse_temperature.exp().clamp(max=MAX_INVERSE_TEMPERATURE)
        return F.linear(token, F.normalize(self.embeddings, dim=-1)) * sharpness

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns up to N·k assignments."""
        clean = self.logits(x)
        std = self.options.noise / self.num_experts
        is_noisy = self.training and self.is_gmoe and std > 0
        noisy = clean + torch.randn_like(clean) * std if is_noisy else clean
        index, weight, _ = moe_route(noisy, self.k, renormalize=self.k > 1)
        wanted = torch.ones_like(index, dtype=torch.bool)
        shape = sequences(context, len(x))
        kept = with_room(index, wanted, shape, self.room, self.num_experts, training=self.training)
        token, rank = kept.nonzero(as_tuple=True)
        probs = noisy.softmax(-1)
        losses = {}
        if self.options.balance_weight:
            losses["balance"] = self.options.balance_weight * self._loss(clean, noisy, probs, index, is_noisy=is_noisy)
        stats = {
            "drop_frac": drop_fraction(wanted, kept),
            "temperature": (-self.log_inverse_temperature).exp().detach(),
        }
        return Routing(token, index[token, rank], weight[token, rank], losses, stats, probs.detach())

    def _loss(self, clean: Tensor, noisy: Tensor, probs: Tensor, index: Tensor, *, is_noisy: bool) -> Tensor:
        if not self.is_gmoe:
            return balance(probs, index, training=self.training)
        importance = cv_squared(probs.sum(0))
        if not is_noisy or self.k == self.num_experts:
            return importance
        std = torch.full_like(clean, self.options.noise / self.num_experts)
        return (importance + cv_squared(stay_probability(clean, noisy, std, self.k).sum(0))) / 2

    @torch.no_grad()
    def after_step(self) -> None:
        """XMoE keeps its expert embeddings at one length."""
        if not self.is_gmoe:
            self.embeddings.copy_(F.normalize(self.embeddings, dim=-1) * XMOE_NORM)
