"""Linear attention with a data-dependent decay for each key channel: GLA and HGRN2."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kernels import chunk_gla
from workloads.mixers.base import ObservedMixer, split_width, wide
from workloads.mixers.lower_bound import BoundedMixer
from workloads.mixers.options.linear_attention import GLA as GLAOptions
from workloads.mixers.options.linear_attention import HGRN2 as HGRN2Options
from workloads.mixers.parts import HeadNorm, ShortConv, linear

State = tuple[Tensor, Tensor]


class GLA(ObservedMixer):
    """Gated linear attention; see the options for the formula."""

    def __init__(self, d_model: int, options: GLAOptions) -> None:
        super().__init__()
        self.d_model, self.num_heads, self.temperature = d_model, options.num_heads, options.temperature
        keys, values = round(options.expand_k * d_model), round(options.expand_v * d_model)
        self.sizes = [keys, keys, values]
        self.scale = split_width(keys, options.num_heads, "num_heads") ** -0.5
        self.into = linear(d_model, sum(self.sizes))
        self.conv = ShortConv(sum(self.sizes), options.conv_width, silu=options.conv_width > 0)
        self.decay = nn.Sequential(linear(d_model, options.gate_rank), linear(options.gate_rank, keys, bias=True))
        self.gate, self.out = linear(d_model, values), linear(values, d_model)
        self.norm = HeadNorm(split_width(values, options.num_heads, "num_heads"))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], (S, window))."""
        memory, window = state or (None, None)
        mixed, window = self.conv(self.into(x), window)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)) for part in mixed.split(self.sizes, dim=-1))
        log_decay = F.logsigmoid(wide(self.decay(x))).unflatten(-1, (self.num_heads, -1)) / self.temperature
        self.note_gate(log_decay)
        o, memory = chunk_gla(q * self.scale, k, v, log_decay, memory)
        return self.out(self.norm(o).flatten(2) * F.silu(self.gate(x))), (memory, window)


class HGRN2(BoundedMixer):
    """HGRN2; see the options for the formula."""

    def __init__(self, d_model: int, options: HGRN2Options) -> None:
        super().__init__()
        self.d_model, self.bounded, self.gate_width = d_model, options.lower_bound, d_model
        size = options.expand_ratio or min(128, d_model)
        split_width(d_model, size, "expand_ratio")
        self.heads = (-1, size)
        self.into = linear(d_model, 3 * d_model)
        self.conv = ShortConv(3 * d_model, options.conv_width)
        self.norm = HeadNorm(d_model)
        self.out = linear(d_model, d_model)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], (S, window))."""
        memory, window = state or (None, None)
        mixed, window = self.conv(self.into(x), window)
        query, forget, value = mixed.chunk(3, dim=-1)
        log_f, write = self.forget_gate(wide(forget))
        self.note_gate(log_f)
        q, k, v, log_f = (part.unflatten(-1, self.heads) for part in (F.silu(query), write, value, log_f))
        o, memory = chunk_gla(wide(q), k, wide(v), log_f, memory)
        return self.out(self.norm(o.flatten(2).to(x.dtype))), (memory, window)
