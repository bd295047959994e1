"""Gated state space (GSS)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.mixers.base import ObservedMixer, wide
from workloads.mixers.long_conv import long_convolution, powers
from workloads.mixers.options.convolution import GSS as Options

NARROWEST = 1


class DiagonalStateSpace(nn.Module):
    """DSS with poles shared by all channels: v [B, T, E] -> z [B, T, E]. State [B, E, N] complex."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.log_rate, self.log_frequency = nn.Parameter(torch.randn(size)), nn.Parameter(torch.randn(size))
        self.read = nn.Parameter(torch.randn(2, width, size))
        self.skip = nn.Parameter(torch.ones(width))

    def forward(self, v: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """v in float32 or wider."""
        steps = v.shape[1]
        pole = torch.complex(-wide(self.log_rate).exp(), wide(self.log_frequency).exp()).to(v.dtype.to_complex())
        read = torch.complex(*wide(self.read).to(v.dtype)) * (torch.expm1(pole) / pole)
        decay = powers(pole, steps)
        z = long_convolution(v, (read @ decay).real) + wide(self.skip) * v
        last = torch.einsum("bte,nt->ben", v.to(pole.dtype), decay.flip(1))
        if state is not None:
            after = decay * torch.exp(pole)[:, None]
            z = z + torch.einsum("ben,nt->bte", read * state, after).real
            last = last + state * after[:, -1]
        return z, last


class GSS(ObservedMixer):
    """Gated state space; see the options for the formula."""

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model = d_model
        narrow = max(NARROWEST, round(options.narrow * d_model))
        broad = round(options.wide * d_model)
        self.into = nn.Linear(d_model, narrow)
        self.gate = nn.Linear(d_model, broad)
        self.space = DiagonalStateSpace(narrow, options.state_size)
        self.widen = nn.Linear(narrow, broad)
        self.out = nn.Linear(broad, d_model)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [B, T, D] -> (y [B, T, D], s [B, D/4, N])."""
        z, state = self.space(F.gelu(wide(self.into(x))), state)
        return self.out(self.widen(z.to(x.dtype)) * F.gelu(self.gate(x))), state
