"""Removes experts from a trained mixture, chosen by how much their router vectors grew.

The router norm change Δ_e = ||w_e after|| − ||w_e before|| (signed) is small for experts that fine-tuning did not need
(arXiv:2405.16646, sec. 4). Small-Δ experts may still hold rare but critical features (arXiv:2604.06515), so judge a
pruned model by its worst classes too. Shapes: E experts, K kept ones.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from workloads.feedforward.experts import Experts
from workloads.feedforward.moe import MoE
from workloads.routers.base import Gate
from workloads.routers.capacity import GShard, Switch
from workloads.routers.token_choice import AdaptiveGating, TopK
from workloads.slots import LayerContext, Router, Routing

Mode = Literal["skip", "reroute"]

_REROUTABLE = (TopK, Switch, GShard, AdaptiveGating)


def router_norms(router: Router) -> Tensor:
    """||w_e|| of each expert's router vector, [E] float32.

    Raises:
        ValueError: the router has no vector an expert (hash), or not one of the gate's.
    """
    gate = _gate(router)
    if gate is None:
        raise ValueError(
            f"{type(router).__name__} has no gate with one vector an expert, so its norms say nothing; "
            "prune by load instead"
        )
    return gate.weight.detach().float().norm(dim=1)


def can_reroute(router: Router) -> bool:
    """Whether every row of the gate is one expert's vector, and nothing else depends on the expert's number."""
    return isinstance(router, _REROUTABLE) and _gate(router) is not None


def _gate(router: Router) -> Gate | None:
    """The gate, where it has one vector an expert."""
    gate = getattr(router, "gate", None)
    return gate if isinstance(gate, Gate) and len(gate.weight) == router.num_experts else None


def norm_change(before: Router, after: Router) -> Tensor:
    """Δ_e between a router before and after fine-tuning, [E] (arXiv:2405.16646, eq. 4)."""
    return router_norms(after) - router_norms(before)


def strongest(score: Tensor, count: int) -> list[int]:
    """The `count` experts of largest score, in the order of their numbers; ties to the lowest. Args: score [E]."""
    return sorted(score.argsort(descending=True, stable=True)[:count].tolist())


def pruned(layer: MoE, keep: Sequence[int], mode: Mode = "skip") -> MoE:
    """A copy of the layer with the kept experts alone.

    Args:
        keep: numbers of the experts to keep, ascending.
        mode: "skip" leaves the gate as it was, and a token that chooses a pruned expert goes without it (the
            authors' form: the softmax keeps its denominator); "reroute" cuts the gate, and tokens choose anew.

    Raises:
        ValueError: no or unknown experts, "reroute" for a router that it is not defined for, or a router that reads
            what all experts made.
    """
    if layer.router.reads_outputs:
        raise ValueError(f"{type(layer.router).__name__} reads the outputs of all experts; none can be pruned")
    if not keep or list(keep) != sorted(set(keep)) or keep[0] < 0 or keep[-1] >= layer.num_experts:
        raise ValueError(
            f"keep must name experts of 0 to {layer.num_experts - 1}, ascending, once each; got {list(keep)}"
        )
    index = torch.tensor(list(keep), device=layer.experts.up.device)
    result = copy.deepcopy(layer)
    result.experts = _subset(result.experts, index)
    result.router = SkippingRouter(result.router, index) if mode == "skip" else _rerouted(result.router, index)
    result.num_experts = len(keep)
    return result


class SkippingRouter(Router):
    """A router whose choices of pruned experts are left out, the others renumbered."""

    position: Tensor
    keep: Tensor

    def __init__(self, inner: Router, keep: Tensor) -> None:
        super().__init__()
        self.inner, self.d_model, self.num_experts = inner, inner.d_model, len(keep)
        self.active_experts = min(inner.active_experts, float(len(keep)))
        self.shared_experts = int((keep < inner.shared_experts).sum())
        position = torch.full((inner.num_experts,), -1, device=keep.device)
        position[keep] = torch.arange(len(keep), device=keep.device)
        self.register_buffer("position", position)
        self.register_buffer("keep", keep)
        self._whole: Routing | None = None

    def forward(self, x: Tensor, context: LayerContext | None = None) -> Routing:
        """Args: x [N, D]. Returns the inner plan without the pruned experts' rows."""
        whole: Routing = self.inner(x, context)
        self._whole = whole
        place = self.position[whole.expert]
        kept = place >= 0
        whole.stats["pruned_frac"] = 1 - kept.float().mean() if len(kept) else torch.zeros((), device=x.device)
        probs = None if whole.probs is None else whole.probs[:, self.keep]
        return replace(whole, token=whole.token[kept], expert=place[kept], weight=whole.weight[kept], probs=probs)

    def refine(self, x: Tensor, y: Tensor, routing: Routing) -> Tensor:
        """As the inner router does with its own plan, which its adapters and scales belong to."""
        return y if self._whole is None else self.inner.refine(x, y, self._whole)


def _rerouted(router: Router, keep: Tensor) -> Router:
    gate = _gate(router)
    if not isinstance(router, _REROUTABLE) or gate is None:
        raise ValueError(
            f"{type(router).__name__} cannot be cut to fewer experts: its gate is not one vector an expert. "
            'Use mode="skip"'
        )
    gate.weight = nn.Parameter(gate.weight.detach()[keep])
    router.num_experts = len(keep)
    if isinstance(router, (TopK, GShard)):
        router.k = min(int(router.k), len(keep))
    router.active_experts = min(router.active_experts, float(len(keep)))
    return router


def _subset(experts: Experts, keep: Tensor) -> Experts:
    for name in ("gate", "up", "down"):
        weight = getattr(experts, name)
        if weight is not None:
            setattr(experts, name, nn.Parameter(weight.detach()[keep]))
    experts.num_experts = len(keep)
    return experts
