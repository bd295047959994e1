"""Smooth activations with learned scalars: Swish-β, the expanded gates xATLU, xGELU and xSiLU, PReLU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from workloads.activations.base import Activation


class SwishBeta(Activation):
    """a σ(βa) (arXiv:1710.05941, sec. 3)."""

    beta: Tensor

    def __init__(self, d_model: int, hidden: int, options: Any) -> None:
        super().__init__()
        self.gated = options.gated
        self.beta = nn.Parameter(torch.tensor(float(options.beta)), requires_grad=options.trainable)

    def forward(self, pre: Tensor, x: Tensor) -> Tensor:
        """pre σ(β pre)."""
        return pre * torch.sigmoid(self.beta.to(pre.dtype) * pre)


def _arctan_gate(a: Tensor) -> Tensor:
    return torch.arctan(a) / math.pi + 0.5


def _erf_gate(a: Tensor) -> Tensor:
    return 0.5 * torch.erf(a * math.sqrt(0.5)) + 0.5


_EXPANDED: Mapping[str, Callable[[Tensor], Tensor]] = {
    "xatlu": _arctan_gate,
    "xgelu": _erf_gate,
    "xsilu": torch.sigmoid,
}


class Expanded(Activation):
    """Gate (1 + 2α) g(a) − α of range (−α, 1 + α), times a unless it is of first order (arXiv:2405.20768)."""

    def __init__(self, d_model: int, hidden: int, options: Any) -> None:
        super().__init__()
        self.gate = _EXPANDED[options.name]
        self.gated = options.order != "plain"
        self.times_input = options.order != "first_order"
        self.alpha = nn.Parameter(torch.tensor(float(options.alpha)))

    def forward(self, pre: Tensor, x: Tensor) -> Tensor:
        """The expanded gate of pre, times pre where the order says so."""
        alpha = self.alpha.to(pre.dtype)
        gate = self.gate(pre) * (1 + 2 * alpha) - alpha
        return gate * pre if self.times_input else gate


class PReLU(Activation):
    """max(a, 0) + s min(a, 0), a slope a channel (arXiv:1502.01852, eq. 1)."""

    def __init__(self, d_model: int, hidden: int, options: Any) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((hidden,), float(options.slope)))

    def forward(self, pre: Tensor, x: Tensor) -> Tensor:
        """φ(pre)."""
        return torch.where(pre > 0, pre, self.slope.to(pre.dtype) * pre)
