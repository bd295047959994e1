"""The hash layer: a fixed map from token id to expert. Shapes: N tokens, E experts, K keys."""

from __future__ import annotations

import heapq

import torch
from torch import Tensor

from workloads.routers.base import sequences, token_choice
from workloads.routers.options.assigned import Hash as Options
from workloads.routers.schedule import ScheduledRouter
from workloads.slots import LayerContext, Routing

SIGN_BITS = 8


class Hash(ScheduledRouter):
    """expert = table[key], weight 1 (arXiv:2106.04426, sec. 3.1-3.2)."""

    table: Tensor
    key_counts: Tensor
    packed: Tensor
    projection: Tensor

    def __init__(self, d_model: int, num_experts: int, chosen: Options) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.num_keys = chosen.vocab_size ** (2 if chosen.key == "bigram" else 1)
        generator = torch.Generator().manual_seed(chosen.seed)
        self.register_buffer("table", torch.randint(num_experts, (self.num_keys,), generator=generator))
        counting = chosen.table == "balanced"
        self.register_buffer("key_counts", torch.zeros(self.num_keys if counting else 0, dtype=torch.int64))
        self.register_buffer("packed", torch.zeros((), dtype=torch.bool))
        self.register_buffer("projection", torch.randn(d_model, SIGN_BITS, generator=generator))

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D], read only where the context has no ids. Returns N assignments."""
        key = self.keys(x, context)
        if self.training and len(self.key_counts) and not self._is_packed():
            self.key_counts.scatter_add_(0, key, torch.ones_like(key))
        share = torch.zeros(self.num_keys, device=x.device).scatter_add_(
            0, key, torch.ones_like(key, dtype=torch.float)
        )
        stats = {"hash_bound": self.num_experts * share.max() / max(len(key), 1)}
        return token_choice(
            self.table[key][:, None], torch.ones(len(x), 1, dtype=x.dtype, device=x.device), stats=stats
        )

    def keys(self, x: Tensor, context: LayerContext) -> Tensor:
        """Key of each token, [N] int64."""
        ids = context.tokens
        if ids is None or ids.numel() != len(x) or ids.is_floating_point():
            bits = (x @ self.projection.to(x.dtype) > 0).long()
            ids = (bits << torch.arange(SIGN_BITS, device=x.device)).sum(-1)
        ids = ids.view(sequences(context, len(x))) % self.options.vocab_size
        if self.options.key == "unigram":
            return ids.flatten()
        previous = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], dim=1)
        return (previous * self.options.vocab_size + ids).flatten()

    def set_progress(self, step: int, total_steps: int) -> None:
        """Pack the balanced table once the counting is over."""
        super().set_progress(step, total_steps)
        if len(self.key_counts) and self.progress >= self.options.counting and not self._is_packed():
            self.table.copy_(packed_table(self.key_counts.tolist(), self.num_experts))
            self.packed.fill_(True)

    def _is_packed(self) -> bool:
        return bool(self.packed)


def packed_table(key_counts: list[int], num_experts: int) -> Tensor:
    """Heaviest key first, each to the least loaded expert, ties to the lowest: [K] int64."""
    table = torch.zeros(len(key_counts), dtype=torch.int64)
    # The number of keys breaks ties of load, so that unseen keys spread too.
    experts = [(0, 0, expert) for expert in range(num_experts)]
    for key in sorted(range(len(key_counts)), key=lambda each: -key_counts[each]):
        load, keys, expert = heapq.heappop(experts)
        table[key] = expert
        heapq.heappush(experts, (load + key_counts[key], keys + 1, expert))
    return table
