"""Gated mixers that read a fixed window of the past: GCNN, PGN and TPGN."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from workloads.mixers.base import ObservedMixer, wide
from workloads.mixers.options.convolution import GCNN as GCNNOptions
from workloads.mixers.options.convolution import PGN as PGNOptions
from workloads.mixers.options.convolution import TPGN as TPGNOptions


def with_past(x: Tensor, past: Tensor | None, steps: int) -> tuple[Tensor, Tensor]:
    """(`steps` earlier inputs, zeros before the first, then x; the last `steps` of that): [B, steps + T, D]."""
    if past is None:
        past = x.new_zeros(x.shape[0], steps, x.shape[2])
    whole = torch.cat([past.to(x.dtype), x], dim=1)
    return whole, whole[:, whole.shape[1] - steps :]


def taps(x: Tensor, count: int, spacing: int = 1) -> Tensor:
    """Windows of `count` inputs `spacing` apart, oldest first: [B, S, D] -> [B, S − (count − 1) spacing, count · D]."""
    length = x.shape[1] - (count - 1) * spacing
    return torch.cat([x[:, i * spacing : i * spacing + length] for i in range(count)], dim=-1)


class GCNN(ObservedMixer):
    """Gated convolution; see the options for the formula."""

    def __init__(self, d_model: int, options: GCNNOptions) -> None:
        super().__init__()
        self.d_model, self.kernel = d_model, options.kernel
        layer = nn.Linear(options.kernel * d_model, 2 * d_model)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        nn.init.zeros_(layer.bias)
        self.conv = weight_norm(layer)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [B, T, D] -> (y [B, T, D], the last inputs)."""
        whole, state = with_past(x, state, self.kernel - 1)
        return F.glu(self.conv(taps(whole, self.kernel)), dim=-1), state


class PastGate(nn.Module):
    """PGN's unit: x [B, T, D] and a window of the past [B, T, W · D] -> [B, T, D]."""

    def __init__(self, d_model: int, window: int) -> None:
        super().__init__()
        self.past = nn.Linear(window * d_model, d_model)
        self.mix = nn.Linear(2 * d_model, 2 * d_model)

    def forward(self, x: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """(y, the gate's logits)."""
        history = self.past(window)
        gate, candidate = self.mix(torch.cat([x, history], dim=-1)).chunk(2, dim=-1)
        g = gate.sigmoid()
        return g * history + (1 - g) * candidate.tanh(), gate


class PGN(ObservedMixer):
    """Parallel gated network; see the options for the formula."""

    def __init__(self, d_model: int, options: PGNOptions) -> None:
        super().__init__()
        self.d_model, self.window = d_model, options.window
        self.unit = PastGate(d_model, options.window)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [B, T, D] -> (y [B, T, D], the last inputs)."""
        whole, state = with_past(x, state, self.window)
        y, gate = self.unit(x, taps(whole[:, :-1], self.window))
        if self.record_gates:
            self.note_gate(F.logsigmoid(wide(gate)))
        return y, state


class TPGN(ObservedMixer):
    """Temporal PGN; see the options for the formula."""

    def __init__(self, d_model: int, options: TPGNOptions) -> None:
        super().__init__()
        self.d_model, self.period, self.periods = d_model, options.period, options.periods
        self.long = PastGate(d_model, options.periods - 1)
        self.row = nn.Linear(options.period * d_model, d_model)
        self.column = nn.Linear(options.periods * d_model, d_model)
        self.out = nn.Linear(2 * d_model, d_model)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [B, T, D] -> (y [B, T, D], the last inputs)."""
        steps, history = x.shape[1], self.period * self.periods - 1
        whole, state = with_past(x, state, history)
        phases = taps(whole[:, self.period - 1 :], self.periods, self.period)
        long, gate = self.long(x, phases[..., : -self.d_model])
        short = self.column(taps(self.row(taps(whole, self.period)), self.periods, self.period))
        assert short.shape[1] == steps
        if self.record_gates:
            self.note_gate(F.logsigmoid(wide(gate)))
        return self.out(torch.cat([long, short], dim=-1)), state
