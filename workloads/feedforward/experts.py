"""Many MLPs side by side, each over its own rows. Shapes: M rows grouped by expert, E experts, D width, H hidden."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from kernels import fused_glu_mlp, grouped_mm
from workloads.feedforward.dense import build_activation
from workloads.feedforward.width import matrix


class Experts(nn.Module):
    """F_e(x) = (φ(x W_gate[e]) ⊙ x W_up[e]) W_down[e], or φ(x W_up[e]) W_down[e]; one activation for all experts.

    Weights are stacked, up and gate [E, D, H], down [E, H, D], and reached by grouped products, so that an expert
    without rows costs nothing and every weight always takes part in the graph.
    """

    def __init__(self, d_model: int, hidden: int, num_experts: int, activation: Any, init_scale: float) -> None:
        super().__init__()
        self.d_model, self.hidden, self.num_experts = d_model, hidden, num_experts
        self.activation = build_activation(activation, d_model, hidden)
        self.gate = matrix(num_experts, d_model, hidden, scale=init_scale) if self.activation.gated else None
        self.up = matrix(num_experts, d_model, hidden, scale=init_scale)
        self.down = matrix(num_experts, hidden, d_model, scale=init_scale)

    def forward(self, rows: Tensor, counts: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Args: rows [M, D] grouped by expert; counts [E] int64. Returns (outputs [M, D], the activation's losses)."""
        if self.gate is not None and self.activation.kernel:
            return fused_glu_mlp(rows, self.gate, self.up, self.down, counts, self.activation.kernel), {}
        up = grouped_mm(rows, self.up, counts)
        if self.gate is None:
            hidden, losses = self.activation(up, rows), self.activation.losses(up)
        else:
            pre = grouped_mm(rows, self.gate, counts)
            hidden, losses = self.activation(pre, rows) * up, self.activation.losses(pre)
        return grouped_mm(hidden, self.down, counts), losses
