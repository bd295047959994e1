"""Softmax attention with rotary positions, over all earlier steps or a sliding window."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.mixers.base import ObservedMixer, split_width
from workloads.mixers.options.attention import Attention as AttentionOptions
from workloads.mixers.options.attention import LocalAttention as LocalOptions
from workloads.mixers.parts import HeadNorm, ShortConv, linear, rotate

Cache = tuple[Tensor, Tensor]
State = tuple[Tensor, Tensor, Tensor]


class Projections(nn.Module):
    """The maps of attention: x [B, T, D] -> q [B, T, H, K], k, v [B, T, G, K], and back from o [B, T, H, K]."""

    def __init__(self, d_model: int, num_heads: int, num_kv_heads: int | None = None, qk_norm: bool = False) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads or num_heads
        split_width(num_heads, self.num_kv_heads, "num_kv_heads")
        self.head_size = split_width(d_model, num_heads, "num_heads")
        narrow = self.num_kv_heads * self.head_size
        self.q, self.k, self.v = linear(d_model, d_model), linear(d_model, narrow), linear(d_model, narrow)
        self.out = linear(d_model, d_model)
        self.q_norm = HeadNorm(self.head_size) if qk_norm else nn.Identity()
        self.k_norm = HeadNorm(self.head_size) if qk_norm else nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, not yet rotated."""
        q, k, v = (layer(x).unflatten(-1, (-1, self.head_size)) for layer in (self.q, self.k, self.v))
        return self.q_norm(q), self.k_norm(k), v


class Attention(ObservedMixer):
    """Attention over all earlier steps; see the options."""

    def __init__(self, d_model: int, options: AttentionOptions) -> None:
        super().__init__()
        self.d_model, self.rotary = d_model, options.rotary_fraction
        self.conv = ShortConv(d_model, options.conv_width)
        self.maps = Projections(d_model, options.num_heads, options.num_kv_heads, options.qk_norm)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], (rotated keys, values) of all steps and the convolution's window)."""
        x, window = self.conv(x, None if state is None else state[2])
        q, k, v = self.maps(x)
        start = 0 if state is None else state[0].shape[1]
        positions = torch.arange(start, start + x.shape[1], device=x.device)
        q, k = rotate(q, positions, fraction=self.rotary), rotate(k, positions, fraction=self.rotary)
        if state is not None:
            k, v = torch.cat([state[0].to(k.dtype), k], dim=1), torch.cat([state[1].to(v.dtype), v], dim=1)
        return self.maps.out(attend(q, k, v)), (k, v, window)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of the last T of S steps: q [B, T, H, K], k, v [B, S, G, K] -> [B, T, H · K]."""
    steps, keys = q.shape[1], k.shape[1]
    # PyTorch's is_causal counts from the first key, so with a cache the mask is given
    mask = None if steps == keys else torch.ones(steps, keys, dtype=torch.bool, device=q.device).tril(keys - steps)
    q, k, v = (y.transpose(1, 2) for y in (q, k, v))
    o = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=k.shape[1] != q.shape[1]
    )
    return o.transpose(1, 2).flatten(2)


class LocalAttention(ObservedMixer):
    """Attention over the last `window` steps; see the options."""

    def __init__(self, d_model: int, options: LocalOptions) -> None:
        super().__init__()
        self.d_model, self.window, self.rotary = d_model, options.window, options.rotary_fraction
        self.conv = ShortConv(d_model, options.conv_width)
        self.maps = Projections(d_model, options.num_heads, options.num_kv_heads, options.qk_norm)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], (keys, values) of the last window − 1 steps and the convolution's window)."""
        x, past = self.conv(x, None if state is None else state[2])
        q, k, v = self.maps(x)
        o, cache = attend_locally(q, k, v, None if state is None else state[:2], self.window, self.rotary)
        return self.maps.out(o), (*cache, past)


def attend_locally(
    q: Tensor, k: Tensor, v: Tensor, state: Cache | None, window: int, rotary: float = 1.0
) -> tuple[Tensor, Cache]:
    """Rotary attention over the last `window` steps.

    Args:
        q: [B, T, H, K], not rotated. k, v: [B, T, G, K].
        state: keys (not rotated) and values of at most window − 1 earlier steps.

    Returns:
        (o [B, T, H · K], the next state).
    """
    if state is not None:
        k, v = torch.cat([state[0].to(k.dtype), k], dim=1), torch.cat([state[1].to(v.dtype), v], dim=1)
    steps, keys = q.shape[1], k.shape[1]
    # rotary attention sees differences of positions only, so they may start anew at the oldest key that is left
    positions = torch.arange(keys, device=q.device)
    turned_q = rotate(q, positions[keys - steps :], fraction=rotary)
    turned_k = rotate(k, positions, fraction=rotary)
    o = banded(turned_q, turned_k, v, window)
    kept = max(0, keys - window + 1)
    return o, (k[:, kept:], v[:, kept:])


def banded(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Attention of the last T of S steps, each over itself and the `window` − 1 steps before it, in blocks of queries.

    q [B, T, H, K], k, v [B, S, G, K] -> [B, T, H · K]. Work and memory O(T · window).
    """
    batch, steps, heads, size = q.shape
    block = min(steps, window)
    blocks = -(-steps // block)
    tail = blocks * block - steps
    front = window - 1 - (k.shape[1] - steps)
    q = F.pad(q, (0, 0, 0, 0, 0, tail)).unflatten(1, (blocks, block))
    # front is below 0 where more keys are there than the first query sees: padding by it drops them
    k, v = (F.pad(y, (0, 0, 0, 0, front, tail)).unfold(1, window - 1 + block, block) for y in (k, v))
    query = torch.arange(block, device=q.device)[:, None]
    key = torch.arange(window - 1 + block, device=q.device)
    seen = (key >= query) & (key <= query + window - 1)
    first = torch.arange(blocks, device=q.device)[:, None, None] * block
    seen = seen & (first + key >= front)
    o = F.scaled_dot_product_attention(
        q.transpose(2, 3),
        k.transpose(-1, -2),
        v.transpose(-1, -2),
        attn_mask=seen[None, :, None],
        enable_gqa=heads != k.shape[2],
    )
    return o.transpose(2, 3).reshape(batch, blocks * block, heads * size)[:, :steps]
