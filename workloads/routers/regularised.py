"""NLLB's regularisers: masked expert outputs, masked final outputs, and a gate between dense and sparse.

Shapes: N tokens, D width, E experts, k experts a token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.routers.base import token_choice
from workloads.routers.options import regularised as configs
from workloads.routers.token_choice import TopK, choose
from workloads.slots import LayerContext, Routing


class EOM(TopK):
    """Top-k whose expert outputs are masked one by one (arXiv:2207.04672, sec. 6.2.2)."""

    options: configs.EOM

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N·k assignments, masked ones of weight 0."""
        routing = super().plan(x, context)
        return _masked(routing, torch.rand_like(routing.weight) >= self.options.p, self.options.p, self.training)


class FOM(TopK):
    """Top-k whose combined output is masked a token (arXiv:2207.04672, sec. 6.2.2)."""

    options: configs.FOM

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N·k assignments, those of masked tokens of weight 0."""
        routing = super().plan(x, context)
        keep = torch.rand(len(x), device=x.device) >= self.options.p
        return _masked(routing, keep[routing.token], self.options.p, self.training)


def _masked(routing: Routing, keep: Tensor, p: float, training: bool) -> Routing:
    """A weight of 0 zeroes the output, and its gradient, exactly as masking the vector would."""
    routing.weight = routing.weight * keep if training else routing.weight * (1 - p)
    routing.stats["masked_frac"] = 1 - keep.float().mean() if training else torch.zeros((), device=keep.device)
    return routing


class CMR(TopK):
    """A gate a token between a shared expert and a top-k mixture (arXiv:2207.04672, sec. 6.2.3)."""

    options: configs.CMR

    def __init__(self, d_model: int, num_experts: int, chosen: configs.CMR) -> None:
        shared = min(1, num_experts - 1)
        super().__init__(d_model, num_experts - shared, chosen)
        self.num_experts, self.shared_experts = num_experts, shared
        self.active_experts = self.k + shared
        self.switch = nn.Linear(d_model, 1)
        nn.init.zeros_(self.switch.weight)
        nn.init.zeros_(self.switch.bias)

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N·(k + 1) assignments; with one expert both branches are that expert."""
        routing = choose(self.logits(x, context), self.k, self.options, training=self.training)
        gate = self.switch(x).sigmoid()
        losses = dict(routing.aux_losses)
        if self.options.budget_weight:
            losses["budget"] = self.options.budget_weight * (gate.mean() - self.options.budget).abs()
        stats = {"gate_mean": gate.detach().mean()}
        if self.training:
            gate = gate * (torch.rand_like(gate) >= self.options.drop)
        index = F.pad(routing.expert.view(len(x), -1) + self.shared_experts, (1, 0))
        weight = torch.cat([1 - gate, gate * routing.weight.view(len(x), -1)], dim=-1)
        probs = routing.probs if routing.probs is None else F.pad(routing.probs, (self.shared_experts, 0))
        return token_choice(index, weight, aux_losses=losses, stats=stats, probs=probs)
