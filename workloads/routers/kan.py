"""KAMoE's gate of spline layers. Shapes: N tokens, I inputs, O outputs, S splines an input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.routers.base import GateRouter, every_expert
from workloads.routers.options.kan import GRKAN as Options
from workloads.slots import LayerContext, Routing

SPLINE_STD = 0.1


class KAN(nn.Module):
    """W elu(x) + Σ_i c_i B_i(x), a B-spline for each input and output (arXiv:2404.19756, eq. 2.10)."""

    def __init__(self, inputs: int, outputs: int, *, grid: int, order: int, reach: float) -> None:
        super().__init__()
        self.grid, self.order, self.reach = grid, order, reach
        self.base = nn.Linear(inputs, outputs)
        self.coefficients = nn.Parameter(torch.randn(outputs, inputs, grid + order) * SPLINE_STD / inputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x [N, I]. Returns [N, O]."""
        return self.base(F.elu(x)) + self.splines(x).flatten(1) @ self.coefficients.flatten(1).t()

    def splines(self, x: Tensor) -> Tensor:
        """B-splines on uniform knots, [N, I, S] with S = grid + order; they sum to 1 inside the grid. Args: x [N, I].

        Only order + 1 of them differ from 0 at any x; these are worked out (de Boor's recursion) and put in place.
        """
        order, size = self.order, self.grid + self.order
        # In units of the knots' spacing, from the first knot, which lies `order` intervals before the grid
        position = (x + self.reach) * (self.grid / (2 * self.reach)) + order
        interval = position.detach().floor().clamp(0, size + order - 1)
        offset = position - interval
        inside = ((position >= 0) & (position < size + order)).to(x.dtype)
        values = [inside]
        for degree in range(1, order + 1):
            lower = [((r + 1 - offset) * values[r]) / degree for r in range(degree)]
            upper = [((offset + degree - r - 1) * values[r]) / degree for r in range(degree)]
            values = [lower[0], *(lower[r] + upper[r - 1] for r in range(1, degree)), upper[-1]]
        # Splines beyond either end get a place of their own, cut off afterwards
        place = interval.long()[..., None] + torch.arange(order + 1, device=x.device)
        everywhere = x.new_zeros(*x.shape, size + 2 * order).scatter(-1, place, torch.stack(values, dim=-1))
        return everywhere[..., order : order + size]


class GRKAN(GateRouter):
    """act(LayerNorm(W_s x + gated KAN(x))) over all experts (arXiv:2409.15161, sec. 3)."""

    def __init__(self, d_model: int, num_experts: int, chosen: Options) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.active_experts = num_experts
        self.skip = nn.Linear(d_model, num_experts)
        self.body = _body(d_model, chosen)
        self.value = nn.Linear(chosen.hidden, num_experts) if self.body is not None else None
        self.value_gate = nn.Linear(chosen.hidden, num_experts) if self.body is not None else None
        self.norm = nn.LayerNorm(num_experts) if self.body is not None else None

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N·E assignments."""
        z, share = self.logits(x)
        gate = z.softmax(-1) if self.options.activation == "softmax" else z.sigmoid()
        return every_expert(gate, stats={"spline_share": share}, probs=gate.detach())

    def logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z [N, E], and how much of it the non-linear branch makes before the norm."""
        skip = self.skip(x)
        if self.body is None or self.value is None or self.value_gate is None or self.norm is None:
            return skip, skip.new_zeros(())
        u = self.body(x)
        v = self.value(u) * self.value_gate(u).sigmoid()
        size = v.detach().abs().mean()
        return self.norm(skip + v), size / (size + skip.detach().abs().mean()).clamp_min(1e-12)


def _body(d_model: int, chosen: Options) -> nn.Sequential | None:
    hidden, dropout = chosen.hidden, nn.Dropout(chosen.dropout)
    if chosen.gate == "grn":
        return nn.Sequential(nn.Linear(d_model, hidden), nn.ELU(), nn.Linear(hidden, hidden), dropout)
    if chosen.gate == "linear":
        return None
    splines = {"grid": chosen.grid, "order": chosen.order, "reach": chosen.reach}
    return nn.Sequential(KAN(d_model, hidden, **splines), KAN(hidden, hidden, **splines), dropout)  # type: ignore[arg-type]
