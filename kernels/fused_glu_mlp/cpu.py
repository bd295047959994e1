"""Gated MLP over groups as three grouped products; autograd follows them."""

from torch import Tensor

from kernels.fused_glu_mlp.reference import ACTIVATIONS
from kernels.grouped_mm.cpu import grouped_mm


def fused_glu_mlp(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor, counts: Tensor, activation: str) -> Tensor:
    """See :func:`kernels.fused_glu_mlp.fused_glu_mlp`."""
    hidden = ACTIVATIONS[activation](grouped_mm(x, w_gate, counts)) * grouped_mm(x, w_up, counts)
    return grouped_mm(hidden, w_down, counts)
