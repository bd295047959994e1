"""GRU and LSTM evaluated in parallel over time."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workloads.mixers.newton import solve, with_gradient
from workloads.mixers.options.recurrent import GRU as GRUOptions
from workloads.mixers.options.recurrent import LSTM as LSTMOptions
from workloads.mixers.options.recurrent import DeerGRU as DeerGRUOptions
from workloads.mixers.options.recurrent import DeerLSTM as DeerLSTMOptions
from workloads.mixers.recurrent import GRU, LSTM, FusedCell, shifted

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


class _Newton(FusedCell):
    """A cell by Newton's method, with its plain loop where that does not converge.

    A subclass stands in front of the cell's class and linearises it. Its state is one vector s [B, S] that begins
    with h.

    fell_back: whether the latest forward pass of more than one step took the loop.
    """

    fell_back: bool = False

    def configure(self, options: DeerGRUOptions | DeerLSTMOptions) -> None:
        """Take over how to iterate, and how far."""
        self.full, self.max_iterations = options.jacobian == "full", options.max_iterations
        self.tolerance = options.tolerance

    def flat(self, state: Any) -> Tensor:
        """The cell's state as one vector [B, S]."""
        return torch.cat(state, dim=-1) if isinstance(state, tuple) else state

    def nested(self, flat: Tensor) -> Any:
        """The other way round."""
        parts = flat.split(self.hidden_size, dim=-1)
        return parts[0] if len(parts) == 1 else parts

    def empty(self, x: Tensor) -> Any:
        """The state before the first step: h alone, unless the cell has more."""
        return x.new_zeros(x.shape[0], self.hidden_size)

    def linearised(self, inputs: Tensor, past: Tensor, *, full: bool) -> tuple[Tensor, Tensor]:
        """All steps at once: W x + b [B, T, gates · H] and states before [B, T, S] -> (s', ∂s'/∂s or its diagonal)."""
        raise TypeError(f"{type(self).__name__} has no Jacobian")

    def run(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Newton's states, or the loop's."""
        if x.shape[1] == 1:
            return super().run(x, state)
        inner = x.to(self.weight_ih.dtype)
        inner = inner.to(torch.promote_types(inner.dtype, torch.float32))
        before = self.flat(self.empty(inner) if state is None else state).to(inner.dtype)
        inputs = F.linear(inner, self.weight_ih.to(inner.dtype), self.bias_ih.to(inner.dtype))
        tolerance = TOLERANCE[inner.dtype] if self.tolerance is None else self.tolerance
        with torch.no_grad():
            like = before[:, None].expand(-1, x.shape[1], -1)
            linearise = lambda past: self.linearised(inputs, past, full=self.full)  # noqa: E731
            solved = solve(linearise, before, like, tolerance, self.max_iterations)
        self.fell_back = solved is None
        if solved is None:
            return super().run(x, state)
        past = shifted(solved, before).detach()
        after, jacobian = self.linearised(inputs, past, full=True)
        states = with_gradient(after, before, jacobian.detach())
        h = states[..., : self.hidden_size]
        self._note(inner, h, state)
        return self.out(h.to(x.dtype)), self.nested(states[:, -1])

    def recurrent(self, past: Tensor) -> tuple[Tensor, ...]:
        """U h + c, gate by gate: [B, T, S] -> gates times [B, T, H]."""
        h = past[..., : self.hidden_size]
        return F.linear(h, self.weight_hh.to(h.dtype), self.bias_hh.to(h.dtype)).chunk(self.gates, dim=-1)


class DeerGRU(_Newton, GRU):
    """GRU; see the options."""

    def __init__(self, d_model: int, options: DeerGRUOptions) -> None:
        shared: dict[str, Any] = {"hidden_size": options.hidden_size, "keep_bias": options.keep_bias}
        super().__init__(d_model, GRUOptions(**shared))
        self.configure(options)

    def linearised(self, inputs: Tensor, past: Tensor, *, full: bool) -> tuple[Tensor, Tensor]:
        """torch.nn's cell. With u_n = U_n h + c_n and products of vectors element by element:

        ∂h'/∂h = diag(z) + diag((h − n) z (1 − z)) U_z + diag((1 − z)(1 − n²)) (diag(r) U_n + diag(u_n r (1 − r)) U_r).
        """
        (a_r, a_z, a_n), (u_r, u_z, u_n) = inputs.chunk(3, dim=-1), self.recurrent(past)
        r, z = (a_r + u_r).sigmoid(), (a_z + u_z).sigmoid()
        n = torch.tanh(a_n + r * u_n)
        after = n + z * (past - n)
        with torch.no_grad():
            by_z, by_n = (past - n) * z * (1 - z), (1 - z) * (1 - n * n)
            by_r = by_n * u_n * r * (1 - r)
            w_r, w_z, w_n = self.weight_hh.to(past.dtype).chunk(3)
            if not full:
                return after, z + by_z * w_z.diagonal() + by_n * r * w_n.diagonal() + by_r * w_r.diagonal()
            dense = by_z[..., None] * w_z + (by_n * r)[..., None] * w_n + by_r[..., None] * w_r
            return after, dense + torch.diag_embed(z)


class DeerLSTM(_Newton, LSTM):
    """LSTM; see the options. s = (h, c)."""

    def __init__(self, d_model: int, options: DeerLSTMOptions) -> None:
        shared: dict[str, Any] = {"hidden_size": options.hidden_size, "forget_bias": options.forget_bias}
        super().__init__(d_model, LSTMOptions(**shared))
        self.configure(options)

    def empty(self, x: Tensor) -> Any:
        """h and c."""
        return super().empty(x), super().empty(x)

    def linearised(self, inputs: Tensor, past: Tensor, *, full: bool) -> tuple[Tensor, Tensor]:
        """With i, f, o after their σ, z after its tanh, k = tanh(c') and products of vectors element by element:

        ∂c'/∂h = diag(z i (1 − i)) U_i + diag(c f (1 − f)) U_f + diag(i (1 − z²)) U_z;  ∂c'/∂c = diag(f);
        ∂h'/∂h = diag(k o (1 − o)) U_o + diag(o (1 − k²)) ∂c'/∂h;  ∂h'/∂c = diag(o (1 − k²) f).
        """
        logits = [a + u for a, u in zip(inputs.chunk(4, dim=-1), self.recurrent(past), strict=True)]
        i, f, z, o = logits[0].sigmoid(), logits[1].sigmoid(), logits[2].tanh(), logits[3].sigmoid()
        c = past[..., self.hidden_size :]
        cell = f * c + i * z
        k = cell.tanh()
        after = torch.cat([o * k, cell], dim=-1)
        with torch.no_grad():
            w_i, w_f, w_z, w_o = self.weight_hh.to(past.dtype).chunk(4)
            by_i, by_f, by_z = z * i * (1 - i), c * f * (1 - f), i * (1 - z * z)
            by_o, by_cell = k * o * (1 - o), o * (1 - k * k)
            if not full:
                cell_by_h = by_i * w_i.diagonal() + by_f * w_f.diagonal() + by_z * w_z.diagonal()
                return after, torch.cat([by_o * w_o.diagonal() + by_cell * cell_by_h, f], dim=-1)
            cell_by_h = by_i[..., None] * w_i + by_f[..., None] * w_f + by_z[..., None] * w_z
            h_by_h = by_o[..., None] * w_o + by_cell[..., None] * cell_by_h
            upper = torch.cat([h_by_h, torch.diag_embed(by_cell * f)], dim=-1)
            return after, torch.cat([upper, torch.cat([cell_by_h, torch.diag_embed(f)], dim=-1)], dim=-2)
