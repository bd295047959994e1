"""Mamba-2's selective state space (SSD)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import chunk_gla
from workloads.mixers.base import ObservedMixer, split_width, wide
from workloads.mixers.options.linear_attention import Mamba2 as Options
from workloads.mixers.parts import HeadNorm, ShortConv

State = tuple[Tensor, Tensor]

DT_FLOOR = 1e-4


def softplus_inverse(x: Tensor) -> Tensor:
    """The y with softplus(y) = x, without overflow for large x."""
    return x + torch.log(-torch.expm1(-x))


def log_uniform(size: int, low: float, high: float) -> Tensor:
    """`size` draws whose logarithm is uniform between the bounds."""
    return torch.exp(torch.rand(size) * (math.log(high) - math.log(low)) + math.log(low))


class Mamba2(ObservedMixer):
    """Mamba-2 block; see the options for the formula."""

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model, self.state_size = d_model, options.state_size
        self.width = round(options.expand * d_model)
        self.head_dim = options.head_dim or min(64, self.width)
        self.num_heads = split_width(self.width, self.head_dim, "head_dim")
        self.sizes = [self.width, self.width + 2 * options.state_size, self.num_heads]
        self.into = nn.Linear(d_model, sum(self.sizes), bias=False)
        self.conv = ShortConv(self.sizes[1], options.conv_width, silu=True, std=max(options.conv_width, 1) ** -0.5)
        dt = log_uniform(self.num_heads, options.dt_min, options.dt_max).clamp(min=DT_FLOOR)
        self.dt_bias = nn.Parameter(softplus_inverse(dt))
        self.log_rate = nn.Parameter(torch.log(torch.rand(self.num_heads) * 15 + 1))
        self.skip = nn.Parameter(torch.ones(self.num_heads))
        self.norm = HeadNorm(self.width)
        self.out = nn.Linear(self.width, d_model, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], (S, window))."""
        memory, window = state or (None, None)
        z, mixed, dt = self.into(x).split(self.sizes, dim=-1)
        mixed, window = self.conv(mixed, window)
        u, b, c = mixed.split([self.width, self.state_size, self.state_size], dim=-1)
        u = wide(u).unflatten(-1, (self.num_heads, -1))
        dt = F.softplus(wide(dt) + wide(self.dt_bias))
        log_decay = -dt * wide(self.log_rate).exp()
        self.note_gate(log_decay)
        k, q, decay = torch.broadcast_tensors(wide(b)[:, :, None], wide(c)[:, :, None], log_decay[..., None])
        o, memory = chunk_gla(q, k, dt[..., None] * u, decay, memory)
        o = (o + wide(self.skip)[:, None] * u).flatten(2).to(x.dtype)
        return self.out(self.norm(o * F.silu(z))), (memory, window)
