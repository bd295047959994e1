"""Routers in which each token chooses its experts by a linear softmax gate, without capacity.

Shapes: N tokens, D width, E experts, k experts a token.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kernels import moe_route
from workloads.routers.base import Gate, GateRouter, sequences, token_choice
from workloads.routers.losses import balance, z_loss
from workloads.routers.options import token_choice as configs
from workloads.routers.options.common import SoftmaxTopK
from workloads.routers.schedule import ScheduledRouter
from workloads.slots import LayerContext, Routing


class TopK(GateRouter):
    """The k largest of softmax(W x), renormalised or not (Mixtral, arXiv:2401.04088, sec. 2.1).

    Routers that differ in their logits alone override `logits`; those that differ in the plan use `choose`.
    """

    def __init__(self, d_model: int, num_experts: int, chosen: SoftmaxTopK) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.k = self.active_experts = min(chosen.k, num_experts)
        self.gate = Gate(d_model, num_experts)

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N·k assignments."""
        return choose(self.logits(x, context), self.k, self.options, training=self.training)

    def logits(self, x: Tensor, context: LayerContext) -> Tensor:
        """Args: x [N, D]. Returns z [N, E]."""
        return self.gate(jittered(x, self.options.jitter if self.training else 0.0))


def jittered(x: Tensor, half_width: float) -> Tensor:
    """x ⊙ U(1 − ε, 1 + ε) (arXiv:2101.03961, sec. 2.4)."""
    return x * (1 + half_width * (2 * torch.rand_like(x) - 1)) if half_width else x


def choose(z: Tensor, k: int, chosen: SoftmaxTopK, *, training: bool) -> Routing:
    """The k largest of softmax(z) with the losses that the options ask for. Args: z [N, E]."""
    index, weight, _ = moe_route(z, k, renormalize=chosen.renormalize and k > 1)
    probs = z.softmax(-1)
    losses = {}
    if chosen.balance_weight:
        losses["balance"] = chosen.balance_weight * balance(probs, index, training=training)
    if chosen.z_weight:
        losses["z"] = chosen.z_weight * z_loss(z)
    return token_choice(index, weight, aux_losses=losses, probs=probs.detach())


class AdaptiveGating(GateRouter):
    """Top-2 where the gate is undecided, else top-1 (arXiv:2310.07188, sec. 3.1)."""

    def __init__(self, d_model: int, num_experts: int, chosen: configs.AdaptiveGating) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.active_experts = min(2, num_experts)
        self.gate = Gate(d_model, num_experts)

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N to 2N assignments."""
        z = self.gate(x)
        probs = z.softmax(-1)
        index, top, _ = moe_route(z, min(2, self.num_experts), renormalize=False)
        two = torch.zeros_like(index, dtype=torch.bool)
        if self.num_experts > 1:
            p = top.detach()
            gap = p[:, 0] - p[:, 1] if self.options.criterion == "difference" else 1 - p[:, 1] / p[:, 0]
            two[:, 1] = gap <= self.options.threshold
        pair = two.any(-1)
        two[:, 0] = True
        weight = top
        if self.options.weights != "probability":
            over = (top * two).sum(-1, keepdim=True)
            shared = top / over
            weight = shared if self.options.weights == "renormalized" else torch.where(pair[:, None], shared, top)
        token, rank = two.nonzero(as_tuple=True)
        losses = {}
        if self.options.balance_weight:
            losses["balance"] = self.options.balance_weight * self._balance(probs, index[:, 0], ~pair)
        stats = {"pair_frac": pair.float().mean()}
        return Routing(token, index[token, rank], weight[token, rank], losses, stats, probs.detach())

    def _balance(self, probs: Tensor, first: Tensor, single: Tensor) -> Tensor:
        """E Σ f p̄, f among the tokens that took one expert; 0 where none did."""
        alone = torch.zeros_like(probs).scatter_(1, first[:, None], single[:, None].to(probs.dtype)).detach()
        fraction = alone.sum(0) / alone.sum().clamp_min(1)
        return self.num_experts * (fraction * probs.mean(0)).sum()


class GWMoE(ScheduledRouter):
    """Top-k, and all experts for the first uncertain tokens of a sequence in training (arXiv:2406.12375)."""

    def __init__(self, d_model: int, num_experts: int, chosen: configs.GWMoE) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.k = self.active_experts = min(chosen.k, num_experts)
        self.gate = Gate(d_model, num_experts)

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns k assignments for a token, E for a broadcast one."""
        z = self.gate(jittered(x, self.options.jitter if self.training else 0.0))
        routing = choose(z, self.k, self.options, training=self.training)
        probs = z.softmax(-1)
        wide = self.uncertain(probs.detach(), sequences(context, len(x)))
        routing.stats["broadcast_frac"] = wide.float().mean()
        if not self.training or self.progress < self.options.start:
            return routing
        weight = torch.zeros_like(probs).index_put((routing.token, routing.expert), routing.weight)
        weight = torch.where(wide[:, None], probs, weight)
        kept = torch.zeros_like(probs, dtype=torch.bool)
        kept[routing.token, routing.expert] = True
        routing.token, routing.expert = (kept | wide[:, None]).nonzero(as_tuple=True)
        routing.weight = weight[routing.token, routing.expert]
        return routing

    def uncertain(self, probs: Tensor, shape: tuple[int, int]) -> Tensor:
        """Which tokens' entropy is over the threshold, the first `slots` a sequence. Args: probs [N, E]; [N] bool."""
        limit = self.options.threshold * math.log(self.num_experts)
        flat = torch.special.entr(probs).sum(-1) >= limit
        if not self.options.slots:
            return flat
        order = flat.view(shape).long().cumsum(-1).flatten()
        return flat & (order <= self.options.slots)
