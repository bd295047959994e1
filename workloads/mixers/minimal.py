"""Recurrences whose gates see the input alone: minGRU and minLSTM."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import linear_scan
from workloads.mixers.base import ObservedMixer, wide
from workloads.mixers.options.elementwise import MinGRU as MinGRUOptions
from workloads.mixers.options.elementwise import MinLSTM as MinLSTMOptions
from workloads.mixers.parts import ShortConv

State = tuple[Tensor, Tensor]


def positive(x: Tensor) -> Tensor:
    """x + ½ for x ≥ 0, σ(x) below: the candidate of the log-space form, continuous and above 0 (sec. B.2.1)."""
    return torch.where(x >= 0, x + 0.5, x.sigmoid())


class _Minimal(ObservedMixer):
    """The frame of both: convolution, maps of the input, scan, output map."""

    def __init__(self, d_model: int, options: MinGRUOptions | MinLSTMOptions, maps: int) -> None:
        super().__init__()
        self.d_model = d_model
        self.positive = options.candidate == "positive"
        width = round(options.expand * d_model)
        self.conv = ShortConv(d_model, options.conv_width)
        self.into = nn.Linear(d_model, maps * width)
        self.out = nn.Identity() if width == d_model else nn.Linear(width, d_model, bias=False)

    def gates(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of the input [B, T, maps · E] -> (log keep, write, candidate logits), each [B, T, E]."""
        raise TypeError(f"{type(self).__name__} has no gates")

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], (h, window))."""
        h, window = state or (None, None)
        u, window = self.conv(x, window)
        log_keep, write, candidate = self.gates(wide(self.into(u)))
        self.note_gate(log_keep)
        states = linear_scan(log_keep.exp(), write * (positive(candidate) if self.positive else candidate), h)
        return self.out(states.to(x.dtype)), (states[:, -1], window)


class MinGRU(_Minimal):
    """minGRU; see the options for the formula."""

    def __init__(self, d_model: int, options: MinGRUOptions) -> None:
        super().__init__(d_model, options, maps=2)

    def gates(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """1 − z and z from one logit."""
        update, candidate = logits.chunk(2, dim=-1)
        return F.logsigmoid(-update), update.sigmoid(), candidate


class MinLSTM(_Minimal):
    """minLSTM; see the options for the formula."""

    def __init__(self, d_model: int, options: MinLSTMOptions) -> None:
        super().__init__(d_model, options, maps=3)
        width = self.into.out_features // 3
        nn.init.constant_(self.into.bias[:width], options.forget_bias)

    def gates(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f/(f + i) is the sigmoid of log f − log i, which stays exact where both gates are shut."""
        forget, write, candidate = logits.chunk(3, dim=-1)
        ratio = F.logsigmoid(forget) - F.logsigmoid(write)
        return F.logsigmoid(ratio), (-ratio).sigmoid(), candidate
