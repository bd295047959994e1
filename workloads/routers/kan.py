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

    knots: Tensor

    def __init__(self, inputs: int, outputs: int, *, grid: int, order: int, reach: float) -> None:
        super().__init__()
        self.order = order
        self.base = nn.Linear(inputs, outputs)
        spacing = 2 * reach / grid
        self.register_buffer("knots", torch.arange(-order, grid + order + 1) * spacing - reach, persistent=False)
        self.coefficients = nn.Parameter(torch.randn(outputs, inputs, grid + order) * SPLINE_STD / inputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x [N, I]. Returns [N, O]."""
        return self.base(F.elu(x)) + torch.einsum("nis,ois->no", self.splines(x), self.coefficients)

    def splines(self, x: Tensor) -> Tensor:
        """B-spline values by the Cox-de Boor recursion, [N, I, S]; they sum to 1 inside the grid. Args: x [N, I]."""
        t = self.knots.to(x.dtype)
        x = x[..., None]
        basis = ((x >= t[:-1]) & (x < t[1:])).to(x.dtype)
        for p in range(1, self.order + 1):
            left = (x - t[: -p - 1]) / (t[p:-1] - t[: -p - 1]) * basis[..., :-1]
            right = (t[p + 1 :] - x) / (t[p + 1 :] - t[1:-p]) * basis[..., 1:]
            basis = left + right
        return basis


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
