"""GRU and LSTM with low-rank, or low-rank plus diagonal, recurrent matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.mixers.base import ObservedMixer, undecayed, wide
from workloads.mixers.cells import output_map
from workloads.mixers.options.recurrent import LowRankGRU as GRUOptions
from workloads.mixers.options.recurrent import LowRankLSTM as LSTMOptions

Pair = tuple[Tensor, Tensor]


class LowRank(nn.Module):
    """The recurrent matrices U_g = B_g A_g + diag(d_g) of several gates.

    A [gates, rank, H] (one for all where tied), B [gates, H, rank], d [gates, H] or None.
    """

    def __init__(self, size: int, rank: int, gates: int, diagonal: bool, tied: bool) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(1 if tied else gates, rank, size))
        self.up = nn.Parameter(torch.empty(gates, size, rank))
        self.diagonal = undecayed(torch.empty(gates, size)) if diagonal else None
        for matrix in (*self.down.data, *self.up.data):
            nn.init.xavier_uniform_(matrix)
        if self.diagonal is not None:
            nn.init.uniform_(self.diagonal, -0.01, 0.01)

    def forward(self, h: Tensor, gates: Sequence[int]) -> Tensor:
        """U_g h for the chosen gates: h [B, H] -> [B, len(gates), H]."""
        which = slice(gates[0], gates[-1] + 1)
        down = self.down if self.down.shape[0] == 1 else self.down[which]
        narrow = torch.einsum("bh,grh->bgr", h, wide(down)).expand(-1, len(gates), -1)
        product = torch.einsum("bgr,ghr->bgh", narrow, wide(self.up[which]))
        return product if self.diagonal is None else product + self.diagonal[which] * h[:, None]


class _LowRankCell(ObservedMixer):
    """The frame of both: input map, low-rank recurrence, learned first state, output map."""

    def __init__(self, d_model: int, options: GRUOptions | LSTMOptions, gates: int, states: int) -> None:
        super().__init__()
        self.d_model, self.hidden_size = d_model, options.hidden_size or d_model
        self.into = nn.Linear(d_model, gates * self.hidden_size)
        self.recurrent = LowRank(self.hidden_size, options.rank, gates, options.diagonal, options.tied)
        self.start = undecayed(torch.zeros(states, self.hidden_size))
        self.out = output_map(options.hidden_size, d_model)
        for gate in self.into.weight.data.chunk(gates):
            nn.init.xavier_uniform_(gate)
        nn.init.zeros_(self.into.bias)

    def first(self, x: Tensor) -> tuple[Tensor, ...]:
        """The learned state before the first step, [B, H] each."""
        return tuple(row.expand(x.shape[0], -1) for row in wide(self.start))

    def inputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """W x + b a step: T tensors [B, gates, H]."""
        return wide(self.into(x)).unflatten(-1, (-1, self.hidden_size)).unbind(1)


class LowRankGRU(_LowRankCell):
    """Low-rank GRU; see the options for the formula."""

    def __init__(self, d_model: int, options: GRUOptions) -> None:
        super().__init__(d_model, options, gates=3, states=1)
        nn.init.constant_(self.into.bias[: self.hidden_size], options.keep_bias)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [B, T, D] -> (y [B, T, D], h [B, H])."""
        (h,) = self.first(x) if state is None else (state,)
        states, keeps = [], []
        for step in self.inputs(x):
            logits = step[:, :2] + self.recurrent(h, (0, 1))
            keep, reset = logits.sigmoid().unbind(1)
            candidate = torch.tanh(step[:, 2] + self.recurrent(reset * h, (2,))[:, 0])
            h = candidate + keep * (h - candidate)
            states.append(h)
            keeps.append(logits[:, 0])
        if self.record_gates:
            self.note_gate(F.logsigmoid(torch.stack(keeps, dim=1)))
        return self.out(torch.stack(states, dim=1).to(x.dtype)), h


class LowRankLSTM(_LowRankCell):
    """Low-rank LSTM; see the options for the formula."""

    def __init__(self, d_model: int, options: LSTMOptions) -> None:
        super().__init__(d_model, options, gates=4, states=2)
        nn.init.constant_(self.into.bias[self.hidden_size : 2 * self.hidden_size], options.forget_bias)

    def forward(self, x: Tensor, state: Pair | None = None) -> tuple[Tensor, Pair]:
        """x [B, T, D] -> (y [B, T, D], (h, c))."""
        h, c = self.first(x) if state is None else state
        states, keeps = [], []
        for step in self.inputs(x):
            write, forget, candidate, read = (step + self.recurrent(h, (0, 1, 2, 3))).unbind(1)
            c = forget.sigmoid() * c + write.sigmoid() * candidate.tanh()
            h = read.sigmoid() * c.tanh()
            states.append(h)
            keeps.append(forget)
        if self.record_gates:
            self.note_gate(F.logsigmoid(torch.stack(keeps, dim=1)))
        return self.out(torch.stack(states, dim=1).to(x.dtype)), (h, c)
