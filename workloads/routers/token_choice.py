"""Routers in which each token chooses its experts, without capacity.

Shapes: N tokens, D width, E experts, k experts a token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import moe_route
from workloads.routers.base import Gate, GateRouter, token_choice
from workloads.routers.losses import balance, z_loss
from workloads.routers.options import token_choice as options
from workloads.slots import LayerContext, Routing


class TopK(GateRouter):
    """The k largest of softmax(W x), renormalised or not (Mixtral, arXiv:2401.04088, sec. 2.1)."""

    def __init__(self, d_model: int, num_experts: int, chosen: options.TopK) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.k = self.active_experts = min(chosen.k, num_experts)
        self.gate = Gate(d_model, num_experts)

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N·k assignments."""
        return self.choose(self.logits(x, context))

    def logits(self, x: Tensor, context: LayerContext) -> Tensor:
        """z [N, E]; what routers that differ in their gate alone override."""
        if self.training and self.options.jitter:
            x = x * (1 + self.options.jitter * (2 * torch.rand_like(x) - 1))
        return self.gate(x)

    def choose(self, z: Tensor) -> Routing:
        """Top-k of softmax(z), with its losses. Args: z [N, E]."""
        index, weight, _ = moe_route(z, self.k, renormalize=self.options.renormalize and self.k > 1)
        probs = z.softmax(-1)
        losses = {}
        if self.options.balance_weight:
            losses["balance"] = self.options.balance_weight * balance(probs, index, training=self.training)
        if self.options.z_weight:
            losses["z"] = self.options.z_weight * z_loss(z)
        return token_choice(index, weight, aux_losses=losses, probs=probs.detach())
