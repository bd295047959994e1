"""What routers are made of: the float32 door, the linear gate, plans from choices, capacity.

Shapes: N tokens, D width, E experts, k experts a token, M assignments, B sequences of T tokens.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import moe_route
from kernels.compilers import opaque
from workloads.slots import LayerContext, Router, Routing

INIT_STD = 0.02
"""Small logits at the start keep the routing near uniform; a large start collapses early."""


class GateRouter(Router):
    """A router whose `plan` runs in float32 (float64 for float64 tokens), outside of autocast and torch.compile.

    The compiled graph breaks here: sizes of plans depend on the data and schedules change numbers at each step, so
    that a traced router would be compiled again and again.
    """

    def __init__(self, d_model: int, num_experts: int) -> None:
        super().__init__()
        self.d_model, self.num_experts = d_model, num_experts

    @opaque
    def forward(self, x: Tensor, context: LayerContext | None = None) -> Routing:
        """Args: x [N, D] any floating dtype. Returns the plan for these tokens, an empty one where N is 0."""
        context = LayerContext(shape=(1, len(x))) if context is None else context
        with torch.autocast(x.device.type, enabled=False):
            return self.plan(widened(x), context) if len(x) else empty(widened(x), self)

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D] float32 or float64. Returns the plan."""
        raise TypeError(f"{type(self).__name__} has no plan")


class Gate(nn.Module):
    """Logits z = x Wᵀ without bias, W [E, D] from N(0, 0.02), in the dtype of x."""

    def __init__(self, d_model: int, num_experts: int, *, std: float = INIT_STD) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_experts, d_model) * std)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x [N, D]. Returns z [N, E]."""
        return F.linear(x, self.weight.to(x.dtype))


def widened(x: Tensor) -> Tensor:
    """x in float32, or as it is in float64."""
    return x if x.dtype == torch.float64 else x.float()


def sequences(context: LayerContext, num_tokens: int) -> tuple[int, int]:
    """(B, T) of the flattened tokens; one sequence where the context does not say, or speaks of other tokens."""
    shape = context.shape
    return shape if shape is not None and shape[0] * shape[1] == num_tokens else (1, num_tokens)


def largest(scores: Tensor, k: int) -> Tensor:
    """Indices [N, k] of the k largest scores of each row, best first, ties to the lowest. Args: scores [N, E]."""
    return moe_route(scores.detach(), k)[0]


def empty(x: Tensor, router: nn.Module) -> Routing:
    """The plan of no tokens; every parameter takes part, as data-parallel training demands. Args: x [0, D]."""
    none = torch.zeros(0, dtype=torch.int64, device=x.device)
    weight = torch.cat([x.flatten(), *(p.flatten()[:0].to(x.dtype) for p in router.parameters())])
    return Routing(none, none, weight)


def token_choice(index: Tensor, weight: Tensor, **parts: object) -> Routing:
    """The plan in which token n goes to index[n] with weight[n]. Args: index, weight [N, k]; parts: as in Routing."""
    token = torch.arange(len(index), device=index.device).repeat_interleave(index.shape[1])
    return Routing(token, index.flatten(), weight.flatten(), **parts)  # type: ignore[arg-type]


def every_expert(weight: Tensor, **parts: object) -> Routing:
    """The plan in which every token goes to every expert. Args: weight [N, E]."""
    index = torch.arange(weight.shape[1], device=weight.device).expand(len(weight), -1)
    return token_choice(index, weight, **parts)


def nonzero(weight: Tensor, **parts: object) -> Routing:
    """The plan of the non-zero entries of weight [N, E]; work falls as gates become sparse."""
    token, expert = weight.detach().nonzero(as_tuple=True)
    return Routing(token, expert, weight[token, expert], **parts)  # type: ignore[arg-type]


def capacity(factor: float, k: int, tokens: int, num_experts: int) -> int:
    """Assignments that one expert takes from a group: ceil(factor · k · tokens / E) (arXiv:2101.03961, eq. 3)."""
    return math.ceil(factor * k * tokens / num_experts)


def within_capacity(expert: Tensor, group: Tensor, limit: int, num_experts: int) -> Tensor:
    """Which assignments find room, each expert serving at most `limit` a group in the given order.

    Args: expert, group [M] int64, assignments in order of service. Returns bool [M].
    """
    key = group * num_experts + expert
    order = key.argsort(stable=True)
    ranked = key[order]
    every = torch.arange(len(key), device=key.device)
    first = torch.ones_like(ranked, dtype=torch.bool)
    first[1:] = ranked[1:] != ranked[:-1]
    start = torch.where(first, every, 0).cummax(0).values if len(key) else every
    return torch.empty_like(first).scatter_(0, order, every - start < limit)


def counts_of(expert: Tensor, num_experts: int) -> Tensor:
    """How often each expert occurs: [E] float32. Args: expert, any shape, int64."""
    ones = torch.ones((), device=expert.device).expand(expert.numel())
    return torch.zeros(num_experts, device=expert.device).scatter_add_(0, expert.flatten(), ones)


def summed_over_ranks(value: Tensor, *, when: bool) -> Tensor:
    """The sum of `value` over all data-parallel workers; `value` itself in one process, or unless `when`."""
    if when and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value
