"""Attention with a gated recurrent cache (GRC)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.mixers.attention import Projections, attend
from workloads.mixers.base import ObservedMixer, split_width, wide
from workloads.mixers.options.attention import GRCAttention as Options
from workloads.mixers.parts import linear, rotate

State = dict[str, Tensor]


class CacheUpdate(nn.Module):
    """The gated update of the cache C [B, slots, M] by a summary X̄ of the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gates = nn.Linear(2 * width, 2 * width)
        self.candidate = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, cache: Tensor, summary: Tensor) -> tuple[Tensor, Tensor]:
        """(C', the update gate's logits)."""
        logits = self.gates(torch.cat([cache, summary], dim=-1))
        reset, update = logits.chunk(2, dim=-1)
        candidate = self.candidate(torch.cat([reset.sigmoid() * cache, summary], dim=-1))
        return cache + update.sigmoid() * (self.norm(F.gelu(candidate)) - cache), update


class GRCAttention(ObservedMixer):
    """Cached attention by segments; see the options for the formula."""

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model, self.options = d_model, options
        self.cache_width = split_width(d_model, 2, "two halves")
        self.half_head = split_width(split_width(d_model, options.num_heads, "num_heads"), 2, "two halves")
        self.maps = Projections(d_model, options.num_heads)
        self.cache_k, self.cache_v = (linear(self.cache_width, self.cache_width) for _ in range(2))
        self.update = CacheUpdate(self.cache_width)
        self.read = nn.Parameter(torch.full((options.num_heads,), options.read_bias))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], the cache and the open segment's inputs)."""
        length, slots = self.options.segment, self.options.slots
        if state is None:
            cache, start = x.new_zeros(x.shape[0], slots, self.cache_width), 0
        else:
            cache, start = state["cache"].to(x.dtype), state["open"].shape[1]
            x = torch.cat([state["open"].to(x.dtype), x], dim=1)
        steps = x.shape[1]
        rows = F.pad(x, (0, 0, 0, -steps % length)).unflatten(1, (-1, length))
        attended, queries = self._within(rows)
        caches = self._caches(cache, attended, closed=steps // length)
        o = self._read(attended, queries, caches).flatten(1, 2)[:, start:steps]
        # clone: a view would keep the whole sequence in memory
        return self.maps.out(o), {"cache": caches[:, -1], "open": x[:, steps - steps % length :].clone()}

    def _within(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Causal attention inside each segment: rows [B, S, L, D] -> (o [B, S, L, D], queries [B, S, L, H, K])."""
        batch, segments, length, _ = rows.shape
        q, k, v = self.maps(rows.flatten(0, 1))
        positions = torch.arange(length, device=rows.device)
        o = attend(rotate(q, positions), rotate(k, positions), v)
        return o.unflatten(0, (batch, segments)), q.unflatten(0, (batch, segments))

    def _caches(self, cache: Tensor, attended: Tensor, closed: int) -> Tensor:
        """The cache before each segment, and after the last closed one: [B, closed + 1, slots, D/2]."""
        summaries = attended[:, :closed, :, : self.cache_width]
        caches, gates = [cache], []
        for i, summary in enumerate(summaries.unbind(1)):
            pooled = F.adaptive_avg_pool1d(summary.transpose(1, 2), self.options.slots).transpose(1, 2)
            if self.options.detach_every and i % self.options.detach_every == 0:
                cache = cache.detach()
            cache, gate = self.update(cache, pooled)
            caches.append(cache)
            gates.append(gate)
        if self.record_gates and gates:
            self.note_gate(F.logsigmoid(-wide(torch.stack(gates, dim=1).flatten(1, 2))))
        return torch.stack([c.to(attended.dtype) for c in caches], dim=1)

    def _read(self, attended: Tensor, queries: Tensor, caches: Tensor) -> Tensor:
        """Mix each segment's own attention with what it reads from the cache before it: [B, S, L, D]."""
        segments, heads = attended.shape[1], self.options.num_heads
        caches = caches[:, :segments]
        k, v = (layer(caches).unflatten(-1, (heads, -1)).transpose(2, 3) for layer in (self.cache_k, self.cache_v))
        q = queries[..., : self.half_head].transpose(2, 3)
        memory = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype)).transpose(2, 3)
        memory = F.pad(memory, (0, self.half_head))
        share = self.read.sigmoid().to(attended.dtype)[:, None]
        own = attended.unflatten(-1, (heads, -1))
        return (share * memory.to(own.dtype) + (1 - share) * own).flatten(-2)
