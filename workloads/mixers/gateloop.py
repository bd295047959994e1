"""GateLoop: a linear recurrence with a data-controlled complex decay."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import linear_scan
from workloads.mixers.base import ObservedMixer, wide
from workloads.mixers.options.elementwise import GateLoop as Options
from workloads.mixers.parts import linear


class GateLoop(ObservedMixer):
    """GateLoop at one channel a head; see the options for the formula."""

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model, self.gate_gradient = d_model, options.gate_gradient
        self.into = linear(d_model, 3 * d_model, std=d_model**-0.5)
        self.gate = linear(d_model, d_model, std=d_model**-0.5)
        self.magnitude = linear(d_model, d_model, bias=True)
        self.phase = linear(d_model, d_model, bias=True) if options.phase else None
        self.out = linear(d_model, d_model, std=d_model**-0.5)
        with torch.no_grad():
            self.magnitude.bias.fill_(options.keep_bias)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [B, T, D] -> (y [B, T, D], h [B, D])."""
        q, k, v = self.into(x).chunk(3, dim=-1)
        log_keep = F.logsigmoid(self._slowed(self.magnitude(x)))
        self.note_gate(log_keep)
        decay = log_keep.exp()
        if self.phase is not None:
            decay = torch.polar(decay, self._slowed(self.phase(x)))
        states = linear_scan(decay, (wide(k) * wide(v)).to(decay.dtype), state)
        read = wide(q) * (states.real if states.is_complex() else states)
        return self.out(F.silu(self.gate(x)) * read.to(x.dtype)), states[:, -1]

    def _slowed(self, logits: Tensor) -> Tensor:
        share = self.gate_gradient
        logits = wide(logits)
        return logits if share == 1 else share * logits + (1 - share) * logits.detach()
