"""Real-gated linear recurrent unit (RG-LRU) and Hawk's recurrent block around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import linear_scan
from workloads.mixers.base import ObservedMixer, wide
from workloads.mixers.options.elementwise import RGLRU as Options
from workloads.mixers.parts import BlockLinear, ShortConv, linear
from workloads.slots import Mixer

State = tuple[Tensor, Tensor]

STEEPEST = 1000.0


class _BoundedSqrt(torch.autograd.Function):
    """√x whose derivative stops at `STEEPEST`: 1/(2√x) is infinite where the decay is 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        root = x.sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        return gradient / (2 * root).clamp(min=1 / STEEPEST)


class GatedUnit(nn.Module):
    """The recurrence alone: u [B, T, E], h [B, E] -> (log a [B, T, E], states [B, T, E]), in float32 or wider."""

    def __init__(self, width: int, options: Options) -> None:
        super().__init__()
        self.c = options.c
        self.recurrence_gate = BlockLinear(width, width, options.num_blocks)
        self.input_gate = BlockLinear(width, width, options.num_blocks)
        low, high = options.min_decay**2, options.max_decay**2
        squared = torch.rand(width, dtype=torch.float64) * (high - low) + low
        rate = -0.5 * squared.log()
        self.decay = nn.Parameter(torch.log(torch.expm1(rate)).to(torch.get_default_dtype()))

    def forward(self, u: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        """Griffin eq. 1-4; h None is the start of a sequence."""
        log_a = -self.c * wide(self.recurrence_gate(u)).sigmoid() * F.softplus(wide(self.decay))
        gated = wide(self.input_gate(u)).sigmoid() * wide(u)
        weight = _BoundedSqrt.apply(-torch.expm1(2 * log_a))
        if h is None:
            weight = torch.cat([torch.ones_like(weight[:, :1]), weight[:, 1:]], dim=1)
        return log_a, linear_scan(log_a.exp(), weight * gated, h)


class RGLRU(ObservedMixer):
    """Hawk's recurrent block; see the options for the formula."""

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model = d_model
        width = round(options.expand * d_model)
        self.into = linear(d_model, width, bias=True, std=d_model**-0.5)
        self.gate = linear(d_model, width, bias=True, std=d_model**-0.5)
        self.conv = ShortConv(width, options.conv_width)
        self.unit = GatedUnit(width, options)
        self.out = linear(width, d_model, bias=True, std=math.sqrt(2 / width))

    def place(self, layer: int, stack: Sequence[Mixer]) -> None:
        """Scale the output projection to variance 2 / (layers · fan-in)."""
        with torch.no_grad():
            self.out.weight.mul_(len(stack) ** -0.5)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], (h, window))."""
        h, window = state or (None, None)
        u, window = self.conv(self.into(x), window)
        log_a, states = self.unit(u, h)
        self.note_gate(log_a)
        y = self.out(states.to(u.dtype) * F.gelu(self.gate(x), approximate="tanh"))
        return y, (states[:, -1], window)
