"""The gated perceptron: hidden units that also multiply inputs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.activations.base import Activation
from workloads.activations.fixed import FUNCTIONS


class GatedPerceptron(Activation):
    """φ(W x + b + v ⊙ Π x) with the products of groups of inputs (arXiv:2409.13854; grouping is ours)."""

    def __init__(self, d_model: int, hidden: int, options: Any) -> None:
        super().__init__()
        self.arity = min(options.arity, d_model)
        self.function = FUNCTIONS[options.inner]
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.product_weight = nn.Parameter(torch.zeros(hidden))
        num_groups = -(-d_model // self.arity)
        self.register_buffer("group", torch.arange(hidden) % num_groups, persistent=False)

    group: Tensor

    def forward(self, pre: Tensor, x: Tensor) -> Tensor:
        """φ(pre + b + v ⊙ product of this unit's group of inputs)."""
        padded = F.pad(x, (0, -x.shape[-1] % self.arity), value=1.0)
        products = padded.unflatten(-1, (-1, self.arity)).prod(-1)[..., self.group]
        return self.function(pre + self.bias.to(pre.dtype) + self.product_weight.to(pre.dtype) * products.to(pre.dtype))
