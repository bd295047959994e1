"""How healthy a routing is, in the same few numbers for every router. Shapes: N tokens, E experts, M assignments."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from workloads.slots import Routing

DEAD_BELOW = 0.1
"""An expert with less than this share of the mean load counts as dead."""


@torch.no_grad()
def routing_health(routing: Routing, num_tokens: int, num_experts: int, shared_experts: int = 0) -> dict[str, Tensor]:
    """The health columns of one routing, over the experts that take part in the choice; scalars, float32.

    An expert's load is the number of its assignments of non-zero weight; where every token visits every expert, the
    sum of their weights, since the number says nothing there.

    util_min, util_max: smallest and largest load over the mean load; 1 is balanced.
    cv: standard deviation of the load over its mean.
    dead_frac: share of experts with less than a tenth of the mean load.
    entropy_norm: mean entropy of the tokens' gate probabilities over ln E; 1 is undecided.
    margin: mean gap between the two largest probabilities of a token.
    drop_frac: share of assignments lost to capacity, as the router counted it; 0 where nothing can be lost.
    experts_per_token: assignments of non-zero weight over tokens, shared experts included.
    """
    weight = routing.weight.detach().float()
    visits = (weight != 0).float()
    routed = num_experts - shared_experts
    dense = len(weight) == num_tokens * num_experts
    load = weight.new_zeros(num_experts).scatter_add_(0, routing.expert, weight.abs() if dense else visits)
    load = load[shared_experts:] if routed else load
    mean = load.mean().clamp_min(torch.finfo(torch.float32).tiny)
    entropy, margin = _decidedness(_probabilities(routing, weight, num_tokens, num_experts)[:, shared_experts:])
    return {
        "util_min": load.min() / mean,
        "util_max": load.max() / mean,
        "cv": load.std(correction=0) / mean,
        "dead_frac": (load < DEAD_BELOW * mean).float().mean(),
        "entropy_norm": entropy,
        "margin": margin,
        "drop_frac": weight.new_zeros(()),
        "experts_per_token": visits.sum() / max(num_tokens, 1),
    } | routing.stats


def _probabilities(routing: Routing, weight: Tensor, num_tokens: int, num_experts: int) -> Tensor:
    if routing.probs is not None:
        return routing.probs.detach().float()
    flat = weight.new_zeros(num_tokens * num_experts)
    return flat.scatter_add_(0, routing.token * num_experts + routing.expert, weight.abs()).view(-1, num_experts)


def _decidedness(probs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean normalised entropy and margin of rows [N, E]; rows without mass do not count."""
    mass = probs.sum(-1, keepdim=True)
    rows = (mass.squeeze(-1) > 0).float()
    p = probs / mass.clamp_min(torch.finfo(torch.float32).tiny)
    total = rows.sum().clamp_min(1.0)
    if p.shape[1] < 2:
        return p.new_zeros(()), rows.sum() / total
    top = p.topk(2, dim=-1).values
    entropy = torch.special.entr(p).sum(-1) / math.log(p.shape[1])
    return (entropy * rows).sum() / total, ((top[:, 0] - top[:, 1]) * rows).sum() / total
