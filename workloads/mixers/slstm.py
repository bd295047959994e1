"""xLSTM's scalar LSTM (sLSTM)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import fused_rnn
from workloads.mixers.base import ObservedMixer, split_width, undecayed, wide
from workloads.mixers.options.recurrent import SLSTM as Options
from workloads.mixers.parts import ShortConv
from workloads.slots import Mixer

State = dict[str, Tensor]
NAMES = ("h", "c", "n", "m")


class SLSTM(ObservedMixer):
    """sLSTM; see the options for the formula. Gates in the order i, f, z, o."""

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model, self.num_heads = d_model, options.num_heads
        self.head_size = size = split_width(d_model, options.num_heads, "num_heads")
        self.conv = ShortConv(d_model, options.conv_width, silu=options.conv_width > 0)
        self.into = nn.Parameter(torch.empty(4, options.num_heads, size, size))
        self.recurrent = nn.Parameter(torch.zeros(4, options.num_heads, size, size))
        self.bias = undecayed(torch.zeros(4, d_model))
        self.norm = nn.Parameter(torch.ones(d_model))
        nn.init.normal_(self.into, std=math.sqrt(2 / (5 * d_model)))
        if options.recurrence == "uniform":
            nn.init.uniform_(self.recurrent, -(d_model**-0.5), d_model**-0.5)
        self._spread_forget_bias(0.0)

    def place(self, layer: int, stack: Sequence[Mixer]) -> None:
        """Forget biases by depth: deeper layers remember longer in more of their units."""
        self._spread_forget_bias(layer / max(len(stack) - 1, 1))

    def _spread_forget_bias(self, depth: float) -> None:
        unit = torch.arange(self.head_size) / max(self.head_size - 1, 1)
        bias = -(-5 + 12 * unit ** (0.3 + 1.3 * depth))
        with torch.no_grad():
            self.bias[1].copy_(bias.repeat(self.num_heads))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], h, c, n, m and the window by name)."""
        convolved, window = self.conv(x, state["window"] if state else None)
        both = torch.cat([convolved, x], dim=-1).to(self.bias.dtype)
        # head by head [N, 4 · size, size], rows are outputs
        recurrent = self.recurrent.transpose(0, 1).flatten(1, 2)
        before = tuple(state[name] for name in NAMES) if state else None
        h, after = fused_rnn("slstm", both, self._input_weight(), recurrent, self.bias.flatten(), None, before)
        self._note(both, h, before)
        y = F.layer_norm(wide(h).unflatten(-1, (self.num_heads, -1)), (self.head_size,)).flatten(-2)
        return (y * self.norm).to(x.dtype), dict(zip(NAMES, after, strict=True)) | {"window": window}

    def _input_weight(self) -> Tensor:
        """[4 D, 2 D]: i and f read the convolved half, z and o the plain one, each head its own part."""
        i, f, z, o = (torch.block_diag(*gate) for gate in self.into)
        none = torch.zeros_like(i)
        return torch.cat([torch.cat(row, dim=1) for row in ((i, none), (f, none), (none, z), (none, o))])

    def _note(self, both: Tensor, h: Tensor, before: tuple[Tensor, ...] | None) -> None:
        if self.record_gates:
            start = torch.zeros_like(h[:, :1]) if before is None else before[0][:, None].to(h.dtype)
            past = torch.cat([start, h[:, :-1]], dim=1)
            rows = slice(self.d_model, 2 * self.d_model)
            logits = F.linear(both, self._input_weight()[rows], self.bias[1])
            logits = logits + F.linear(past, torch.block_diag(*self.recurrent[1]))
            self.note_gate(F.logsigmoid(wide(logits)))
