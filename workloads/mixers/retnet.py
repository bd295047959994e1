"""Multi-scale retention (RetNet)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import chunk_gla
from workloads.mixers.base import ObservedMixer, split_width
from workloads.mixers.options.linear_attention import RetNet as Options
from workloads.mixers.parts import HeadNorm, ShortConv, linear, rotate

State = tuple[Tensor, Tensor, Tensor]


class RetNet(ObservedMixer):
    """Retention; see the options for the formula."""

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model, self.num_heads, self.rotary = d_model, options.num_heads, options.rotary
        values = round(options.expand_v * d_model)
        split_width(values, options.num_heads, "num_heads")
        self.key_size = split_width(d_model, options.num_heads, "num_heads")
        self.conv = ShortConv(d_model, options.conv_width)
        self.q, self.k, self.v = linear(d_model, d_model), linear(d_model, d_model), linear(d_model, values)
        self.gate, self.out = linear(d_model, values), linear(values, d_model)
        self.norm = HeadNorm(values // options.num_heads)

    def log_decay(self, like: Tensor) -> Tensor:
        """log γ [H]."""
        heads = torch.arange(self.num_heads, device=like.device, dtype=torch.float64)
        return torch.log1p(-(2.0 ** (-5 - heads))).to(torch.promote_types(like.dtype, torch.float32))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], (S, position, window))."""
        memory, position, window = state or (None, torch.zeros(x.shape[0], dtype=torch.int64, device=x.device), None)
        x, window = self.conv(x, window)
        q, k, v = (layer(x).unflatten(-1, (self.num_heads, -1)) for layer in (self.q, self.k, self.v))
        if self.rotary:
            positions = position[:, None] + torch.arange(x.shape[1], device=x.device)
            q, k = rotate(q, positions), rotate(k, positions)
        decay = self.log_decay(x)[:, None].expand(*k.shape)
        self.note_gate(decay)
        o, memory = chunk_gla(q * self.key_size**-0.5, k, v, decay, memory)
        y = self.norm(o).flatten(2) * F.silu(self.gate(x))
        return self.out(y), (memory, position + x.shape[1], window)
