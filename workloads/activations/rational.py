"""Group-rational activation of the Kolmogorov-Arnold transformer.

Shapes: M rows, H hidden width, G groups.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from workloads.activations.base import Activation

# Least-squares fits on [-3, 3] for the denominator 1 + sum |b_i| |a|^i. Presets for another denominator, which public
# code carries, are off by more than one under this form.
_FITS = {
    "gelu": (
        (-0.0021462, 0.4993119, 0.4121712, 0.1129826, 0.0104918, 0.000064),
        (0.0, 0.2240714, 0.0009824, 0.0),
    ),
    "silu": (
        (0.000009, 0.5000258, 0.2499691, 0.0527746, 0.0055844, 0.000248),
        (0.0000989, 0.1054876, 0.0000154, 0.0004947),
    ),
    "identity": ((0.0, 1.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)),
}


class GroupRational(Activation):
    """P(a) / (1 + Σ |b_i| |a|^i), P shared, b one a group (arXiv:2409.10594, sec. 3.2)."""

    def __init__(self, d_model: int, hidden: int, options: Any) -> None:
        super().__init__()
        if hidden % options.groups:
            raise ValueError(f"group_rational: groups ({options.groups}) must divide the hidden width ({hidden})")
        numerator, denominator = _FITS[options.start]
        self.groups = options.groups
        self.numerator = nn.Parameter(torch.tensor(numerator))
        # One-dimensional, so that weight decay, which is for matrices, leaves the coefficients alone.
        self.denominator = nn.Parameter(torch.tensor(denominator).repeat(options.groups))

    def forward(self, pre: Tensor, x: Tensor) -> Tensor:
        """φ(pre), computed in float32 or wider."""
        wide = pre.double() if pre.dtype == torch.float64 else pre.float()
        a = wide.unflatten(-1, (self.groups, -1))
        p = torch.zeros_like(a)
        for coefficient in self.numerator.to(a.dtype).flip(0):
            p = p * a + coefficient
        q = torch.zeros_like(a)
        size = a.abs()
        for coefficient in self.denominator.to(a.dtype).abs().view(self.groups, -1).flip(1).unbind(1):
            q = (q + coefficient[:, None]) * size
        return (p / (1 + q)).flatten(-2).to(pre.dtype)
