"""Recurrences with a full recurrent matrix, in torch.nn's weight layout."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import fused_rnn
from workloads.mixers.base import ObservedMixer, wide
from workloads.mixers.options.recurrent import GRU as GRUOptions
from workloads.mixers.options.recurrent import LSTM as LSTMOptions
from workloads.mixers.options.recurrent import RNNTanh as RNNTanhOptions


class FusedCell(ObservedMixer):
    """One of the cells of `kernels.fused_rnn` with its weights, gates stacked in torch.nn's order.

    Input weights start Xavier-uniform and recurrent weights orthogonal, gate by gate; biases at 0.
    """

    cell: ClassVar[str]
    gates: ClassVar[int]

    def __init__(self, d_model: int, hidden_size: int | None) -> None:
        super().__init__()
        self.d_model, self.hidden_size = d_model, hidden_size or d_model
        rows = self.gates * self.hidden_size
        self.weight_ih = nn.Parameter(torch.empty(rows, d_model))
        self.weight_hh = nn.Parameter(torch.empty(rows, self.hidden_size))
        self.bias_ih = nn.Parameter(torch.zeros(rows))
        self.bias_hh = nn.Parameter(torch.zeros(rows))
        self.out = nn.Identity() if hidden_size is None else nn.Linear(hidden_size, d_model)
        for gate in range(self.gates):
            nn.init.xavier_uniform_(self.rows(self.weight_ih, gate))
            nn.init.orthogonal_(self.rows(self.weight_hh, gate))

    def rows(self, weight: Tensor, gate: int) -> Tensor:
        """The part of a stacked weight or bias that belongs to one gate."""
        return weight.data[gate * self.hidden_size : (gate + 1) * self.hidden_size]

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """x [B, T, D] -> (y [B, T, D], the cell's state: h, or a tuple that begins with h)."""
        return self.run(x, state)

    def run(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The fused recurrence and the output map."""
        # in the weights' precision: under autocast a recurrence in bfloat16 would drift
        inner = x.to(self.weight_hh.dtype)
        h, after = fused_rnn(self.cell, inner, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, state)
        self._note(inner, h, state)
        return self.out(h.to(x.dtype)), after

    def _note(self, x: Tensor, h: Tensor, state: Any) -> None:
        """Summarise the keep gate, computed anew from the states: the fused recurrence does not give its gates."""

    def gate_logits(self, gate: int, x: Tensor, past: Tensor) -> Tensor:
        """W x + b + U h + c of one gate, for all steps at once: x [B, T, D], past [B, T, H] -> [B, T, H]."""
        into = F.linear(x, self.rows(self.weight_ih, gate), self.rows(self.bias_ih, gate))
        return into + F.linear(past, self.rows(self.weight_hh, gate), self.rows(self.bias_hh, gate))


def shifted(h: Tensor, first: Tensor | None) -> Tensor:
    """h_{t−1} for all t: [B, T, H] one step later, with `first` [B, H] (zeros if None) in front."""
    start = torch.zeros_like(h[:, :1]) if first is None else first[:, None].to(h.dtype)
    return torch.cat([start, h[:, :-1]], dim=1)


class RNNTanh(FusedCell):
    """Elman's network; see the options for the formula."""

    cell, gates = "rnn_tanh", 1

    def __init__(self, d_model: int, options: RNNTanhOptions) -> None:
        super().__init__(d_model, options.hidden_size)


class LSTM(FusedCell):
    """Long short-term memory; see the options for the formula."""

    cell, gates = "lstm", 4
    FORGET: ClassVar[int] = 1

    def __init__(self, d_model: int, options: LSTMOptions) -> None:
        super().__init__(d_model, options.hidden_size)
        # one of the two biases: their sum counts
        nn.init.constant_(self.rows(self.bias_ih, self.FORGET), options.forget_bias)

    def _note(self, x: Tensor, h: Tensor, state: Any) -> None:
        if self.record_gates:
            past = shifted(h, None if state is None else state[0])
            self.note_gate(F.logsigmoid(wide(self.gate_logits(self.FORGET, x, past))))


class GRU(FusedCell):
    """Gated recurrent unit; see the options for the formula."""

    cell, gates = "gru", 3
    KEEP: ClassVar[int] = 1

    def __init__(self, d_model: int, options: GRUOptions) -> None:
        super().__init__(d_model, options.hidden_size)
        self.reset = options.reset
        nn.init.constant_(self.rows(self.bias_ih, self.KEEP), options.keep_bias)

    def run(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """As the base; with the reset gate before the product a plain loop, which the fused cell does not know."""
        if self.reset == "after":
            return super().run(x, state)
        h = wide(x.new_zeros(x.shape[0], self.hidden_size)) if state is None else state
        inputs = wide(F.linear(x.to(self.weight_ih.dtype), self.weight_ih, self.bias_ih + self.bias_hh))
        recurrent = wide(self.weight_hh)
        gating, candidate = recurrent[: 2 * self.hidden_size], recurrent[2 * self.hidden_size :]
        states = []
        for step in inputs.unbind(1):
            into_gates, into_candidate = step.split([2 * self.hidden_size, self.hidden_size], dim=-1)
            r, z = (into_gates + F.linear(h, gating)).sigmoid().chunk(2, dim=-1)
            n = torch.tanh(into_candidate + F.linear(r * h, candidate))
            h = n + z * (h - n)
            states.append(h)
        outputs = torch.stack(states, dim=1)
        self._note(x, outputs, state)
        return self.out(outputs.to(x.dtype)), h

    def _note(self, x: Tensor, h: Tensor, state: Any) -> None:
        if self.record_gates:
            self.note_gate(F.logsigmoid(wide(self.gate_logits(self.KEEP, x, shifted(h, state)))))
