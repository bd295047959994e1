"""Hierarchically gated recurrent network, real and complex."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import linear_scan
from workloads.mixers.base import wide
from workloads.mixers.lower_bound import BoundedMixer
from workloads.mixers.options.elementwise import HGRN as Options
from workloads.mixers.parts import HeadNorm, ShortConv, linear

State = tuple[Tensor, Tensor]


class HGRN(BoundedMixer):
    """HGRN; see the options for the formula."""

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model = d_model
        self.complex, self.bounded = options.form == "complex", options.lower_bound
        self.gate_width = width = round(options.expand * d_model)
        parts = 2 if self.complex else 1
        self.conv = ShortConv(d_model, options.conv_width)
        self.into = linear(d_model, parts * width)
        self.forget = linear(d_model, width)
        self.gate = linear(d_model, parts * width)
        self.norm = HeadNorm(parts * width)
        self.out = linear(parts * width, d_model)
        if self.complex:
            self.theta = nn.Parameter(10000.0 ** (-2 * torch.arange(width) / width))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], (h, window))."""
        h, window = state or (None, None)
        u, window = self.conv(x, window)
        log_f, write = self.forget_gate(wide(self.forget(u)))
        self.note_gate(log_f)
        candidate = F.silu(wide(self.into(u)))
        if self.complex:
            candidate = torch.complex(*candidate.chunk(2, dim=-1))
            turn = torch.polar(torch.ones_like(self.theta, dtype=log_f.dtype), self.theta.to(log_f.dtype))
            states = linear_scan(log_f.exp() * turn, write * candidate, h)
            both = torch.cat([states.real, states.imag], dim=-1).to(x.dtype)
            y = self.norm(self.gate(x).sigmoid() * both)
        else:
            states = linear_scan(log_f.exp(), write * candidate, h)
            y = self.norm(states.to(x.dtype)) * F.silu(self.gate(x))
        return self.out(y), (states[:, -1], window)
