"""Activations without parameters: ReLU, SiLU, GELU, and the GLU family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workloads.activations.base import Activation


def identity(a: Tensor) -> Tensor:
    """a itself."""
    return a


FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": identity,
    "relu": F.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
}
"""By the names that `kernels.fused_glu_mlp` gives them."""

GATES = {"glu": "sigmoid", "bilinear": "identity", "reglu": "relu", "geglu": "gelu", "swiglu": "silu"}
"""The function inside each gate of the GLU family (arXiv:2002.05202, eq. 5)."""


class Fixed(Activation):
    """A function without parameters, plain or as a gate: the options' `inner` where they have one, else their name."""

    def __init__(self, d_model: int, hidden: int, options: Any) -> None:
        super().__init__()
        name = getattr(options, "inner", options.name)
        self.gated = name in GATES
        self.kernel = GATES.get(name)
        self.function = FUNCTIONS[GATES.get(name, name)]

    def forward(self, pre: Tensor, x: Tensor) -> Tensor:
        """φ(pre)."""
        return self.function(pre)


class GELU(Activation):
    """GELU, exact or by tanh (arXiv:1606.08415, sec. 2)."""

    def __init__(self, d_model: int, hidden: int, options: Any) -> None:
        super().__init__()
        self.approximate = options.approximate

    def forward(self, pre: Tensor, x: Tensor) -> Tensor:
        """φ(pre)."""
        return F.gelu(pre, approximate=self.approximate)
