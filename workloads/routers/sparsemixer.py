"""SparseMixer: sampled experts with a quadrature estimate of the choice's gradient. Shapes: N tokens, E experts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workloads.routers.base import Gate, GateRouter, largest, token_choice
from workloads.routers.losses import balance
from workloads.routers.options import token_choice as configs
from workloads.slots import LayerContext, Routing

CHANCE_OF_ONE = {"v1": 1 / 2, "v2": 1 / 4, "v2_full": 5 / 8}
SMALL = {"v1": 1 / 2, "v2": 1 / 3, "v2_full": 1 / 3}
BACKWARD = {"v1": 2.0, "v2": 1.0, "v2_full": 2.0}


class SparseMixer(GateRouter):
    """Sample an expert, weigh it by a random quadrature node (arXiv:2310.00811, alg. 1; arXiv:2409.12136, app. A)."""

    def __init__(self, d_model: int, num_experts: int, chosen: configs.SparseMixer) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.k = self.active_experts = min(chosen.k, num_experts)
        self.gate = Gate(d_model, num_experts)
        scaled = chosen.variant == "v1" and chosen.scale_output
        self.scale = nn.Parameter(torch.ones(d_model)) if scaled else None

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N·k assignments."""
        variant = self.options.variant
        z = self.gate(x) / (2 if variant == "v2_full" else 1)
        open_z, indices, weights, off_peak = z, [], [], []
        for _ in range(self.k):
            p = masked_softmax(open_z, self.options.r, variant)
            best = largest(open_z, 1)
            drawn = torch.multinomial(p.detach(), 1) if self.training else best
            weight = p.gather(1, drawn)
            if self.training:
                coin = torch.rand_like(weight) < CHANCE_OF_ONE[variant]
                weight = multiplier(weight, coin | (drawn == best), variant)
            indices.append(drawn)
            weights.append(weight)
            off_peak.append((drawn != best).float().mean())
            open_z = open_z.scatter(1, drawn, -torch.inf)
        index = torch.cat(indices, -1)
        probs = z.softmax(-1)
        losses = {}
        if self.options.balance_weight:
            losses["balance"] = self.options.balance_weight * balance(probs, index, training=self.training)
        stats = {"sampled_frac": torch.stack(off_peak).mean()}
        return token_choice(index, torch.cat(weights, -1), aux_losses=losses, stats=stats, probs=probs.detach())

    def refine(self, x: Tensor, y: Tensor, routing: Routing) -> Tensor:
        """v1's learned output scale ω ⊙ y."""
        return y if self.scale is None else self.scale.to(y.dtype) * y


def masked_softmax(z: Tensor, r: float, variant: str) -> Tensor:
    """softmax over the logits near the largest; the others get 0. Args: z [N, E], -inf for experts already taken."""
    top = z.max(-1, keepdim=True).values
    if variant == "v1":
        far = (top - z) > 2 * r * torch.maximum(z.abs(), top.abs())
    else:
        far = (top - z) > r * (z.abs() + top.abs())
    return z.masked_fill(far | z.isneginf(), -torch.inf).softmax(-1)


def multiplier(p: Tensor, is_one: Tensor, variant: str) -> Tensor:
    """c·p forward and s·p backward, c = 1 where `is_one`, else 1/2 (v1) or 1/3 (v2)."""
    c = torch.full_like(p, SMALL[variant]).masked_fill(is_one, 1.0)
    s = BACKWARD[variant]
    return s * p + ((c - s) * p).detach()
