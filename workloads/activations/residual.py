"""Rules on a feed-forward's output: ReZero's scalar and GTrXL's gate, around any activation without parameters."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.activations.fixed import Fixed


class ReZero(Fixed):
    """y = α F(x), α learned from 0 (arXiv:2003.04887, eq. 2)."""

    def __init__(self, d_model: int, hidden: int, options: Any) -> None:
        super().__init__(d_model, hidden, options)
        self.alpha = nn.Parameter(torch.tensor(float(options.alpha)))

    def finish(self, y: Tensor, x: Tensor) -> Tensor:
        """α y."""
        return self.alpha.to(y.dtype) * y


class GatedResidual(Fixed):
    """y = σ(W x − b) ⊙ F(x) (GTrXL's output gate, arXiv:1910.06764, sec. 3.2)."""

    def __init__(self, d_model: int, hidden: int, options: Any) -> None:
        super().__init__(d_model, hidden, options)
        self.weight = nn.Parameter(torch.zeros(d_model, d_model))
        self.bias = nn.Parameter(torch.full((d_model,), -float(options.bias)))

    def finish(self, y: Tensor, x: Tensor) -> Tensor:
        """σ(W x − b) ⊙ y."""
        return torch.sigmoid(F.linear(x, self.weight, self.bias)) * y
