"""GRU evaluated in parallel over time."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workloads.mixers.newton import solve, with_gradient
from workloads.mixers.options.recurrent import GRU as GRUOptions
from workloads.mixers.options.recurrent import DeerGRU as Options
from workloads.mixers.recurrent import GRU, shifted

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


class DeerGRU(GRU):
    """GRU by Newton's method, with the plain loop where that does not converge; see the options.

    fell_back: whether the latest forward pass of more than one step took the loop.
    """

    fell_back: bool = False

    def __init__(self, d_model: int, options: Options) -> None:
        shared: dict[str, Any] = {"hidden_size": options.hidden_size, "keep_bias": options.keep_bias}
        super().__init__(d_model, GRUOptions(**shared))
        self.full, self.max_iterations = options.jacobian == "full", options.max_iterations
        self.tolerance = options.tolerance

    def run(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Newton's states, or the loop's."""
        if x.shape[1] == 1:
            return super().run(x, state)
        inner = x.to(self.weight_ih.dtype)
        inner = inner.to(torch.promote_types(inner.dtype, torch.float32))
        h0 = inner.new_zeros(x.shape[0], self.hidden_size) if state is None else state.to(inner.dtype)
        inputs = F.linear(inner, self.weight_ih.to(inner.dtype), self.bias_ih.to(inner.dtype))
        tolerance = TOLERANCE[inner.dtype] if self.tolerance is None else self.tolerance
        with torch.no_grad():
            like = inputs[..., : self.hidden_size]
            linearise = lambda past: self._linearised(inputs, past, full=self.full)  # noqa: E731
            solved = solve(linearise, h0, like, tolerance, self.max_iterations)
        self.fell_back = solved is None
        if solved is None:
            return super().run(x, state)
        past = shifted(solved, h0).detach()
        with torch.no_grad():
            jacobian = self._linearised(inputs, past, full=True)[1]
        h = with_gradient(self._cell(inputs, past)[0], h0, jacobian)
        self._note(inner, h, state)
        return self.out(h.to(x.dtype)), h[:, -1]

    def _cell(self, inputs: Tensor, past: Tensor) -> tuple[Tensor, ...]:
        """torch.nn's GRU cell for all steps at once: (h', r, z, n, U_n h + c_n)."""
        recurrent = F.linear(past, self.weight_hh.to(past.dtype), self.bias_hh.to(past.dtype))
        (a_r, a_z, a_n), (u_r, u_z, u_n) = inputs.chunk(3, dim=-1), recurrent.chunk(3, dim=-1)
        r, z = (a_r + u_r).sigmoid(), (a_z + u_z).sigmoid()
        n = torch.tanh(a_n + r * u_n)
        return n + z * (past - n), r, z, n, u_n

    def _linearised(self, inputs: Tensor, past: Tensor, *, full: bool) -> tuple[Tensor, Tensor]:
        """(h', ∂h'/∂h) with u_n = U_n h + c_n and products of vectors element by element:

        ∂h'/∂h = diag(z) + diag((h − n) z (1 − z)) U_z + diag((1 − z)(1 − n²)) (diag(r) U_n + diag(u_n r (1 − r)) U_r).
        """
        after, r, z, n, u_n = self._cell(inputs, past)
        by_z, by_n = (past - n) * z * (1 - z), (1 - z) * (1 - n * n)
        by_r = by_n * u_n * r * (1 - r)
        w_r, w_z, w_n = self.weight_hh.to(past.dtype).chunk(3)
        if not full:
            return after, z + by_z * w_z.diagonal() + by_n * r * w_n.diagonal() + by_r * w_r.diagonal()
        dense = by_z[..., None] * w_z + (by_n * r)[..., None] * w_n + by_r[..., None] * w_r
        return after, dense + torch.diag_embed(z)
