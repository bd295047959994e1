"""Small recurrent cells that are run step by step: MGU and IndRNN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import linear_scan
from workloads.mixers.base import ObservedMixer, wide
from workloads.mixers.options.recurrent import MGU as MGUOptions
from workloads.mixers.options.recurrent import IndRNN as IndRNNOptions
from workloads.slots import Mixer


def output_map(hidden_size: int | None, d_model: int) -> nn.Module:
    """From the recurrence to the model's width; nothing where the recurrence has that width by default."""
    return nn.Identity() if hidden_size is None else nn.Linear(hidden_size, d_model)


class MGU(ObservedMixer):
    """Minimal gated unit; see the options for the formula."""

    def __init__(self, d_model: int, options: MGUOptions) -> None:
        super().__init__()
        self.d_model, self.hidden_size = d_model, options.hidden_size or d_model
        self.into = nn.Linear(d_model, 2 * self.hidden_size)
        self.forget, self.candidate = (nn.Parameter(torch.empty(self.hidden_size, self.hidden_size)) for _ in range(2))
        self.out = output_map(options.hidden_size, d_model)
        nn.init.xavier_uniform_(self.into.weight)
        nn.init.zeros_(self.into.bias)
        nn.init.constant_(self.into.bias[: self.hidden_size], options.write_bias)
        nn.init.orthogonal_(self.forget)
        nn.init.orthogonal_(self.candidate)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [B, T, D] -> (y [B, T, D], h [B, H])."""
        forget, candidate = wide(self.forget), wide(self.candidate)
        h = wide(x.new_zeros(x.shape[0], self.hidden_size)) if state is None else state
        states, gates = [], []
        for step in wide(self.into(x)).unbind(1):
            into_gate, into_candidate = step.chunk(2, dim=-1)
            logit = into_gate + F.linear(h, forget)
            f = logit.sigmoid()
            h = h + f * (torch.tanh(into_candidate + F.linear(f * h, candidate)) - h)
            states.append(h)
            gates.append(logit)
        if self.record_gates:
            self.note_gate(F.logsigmoid(-torch.stack(gates, dim=1)))
        return self.out(torch.stack(states, dim=1).to(x.dtype)), h


class IndRNN(ObservedMixer):
    """Independently recurrent network; see the options for the formula."""

    LAST_SPREAD = 0.1

    def __init__(self, d_model: int, options: IndRNNOptions) -> None:
        super().__init__()
        self.d_model, self.hidden_size = d_model, options.hidden_size or d_model
        self.activation, self.bound = options.activation, options.max_recurrence
        self.into = nn.Linear(d_model, self.hidden_size)
        self.recurrence = nn.Parameter(torch.rand(self.hidden_size))
        self.out = output_map(options.hidden_size, d_model)
        nn.init.kaiming_normal_(self.into.weight, nonlinearity="relu")
        nn.init.zeros_(self.into.bias)

    def set_progress(self, step: int, total_steps: int) -> None:
        """Nothing here follows a schedule; its presence makes the trainer call `after_step`."""

    def after_step(self) -> None:
        """Bring |u| back under its bound. After the optimiser and not in forward, so that u can come back."""
        with torch.no_grad():
            self.recurrence.clamp_(-self.bound, self.bound)

    def place(self, layer: int, stack: Sequence[Mixer]) -> None:
        """Let the last layer of its kind remember from the start."""
        if not any(isinstance(mixer, IndRNN) for mixer in stack[layer + 1 :]):
            with torch.no_grad():
                self.recurrence.uniform_(1 - self.LAST_SPREAD, 1)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [B, T, D] -> (y [B, T, D], h [B, H])."""
        inputs = wide(self.into(x))
        u = wide(self.recurrence)
        self.note_gate(u.abs().log().expand_as(inputs))
        if self.activation == "identity":
            states = linear_scan(u.expand_as(inputs), inputs, state)
            return self.out(states.to(x.dtype)), states[:, -1]
        act = torch.relu if self.activation == "relu" else torch.tanh
        h = torch.zeros_like(inputs[:, 0]) if state is None else state
        outputs = []
        for step in inputs.unbind(1):
            h = act(step + u * h)
            outputs.append(h)
        return self.out(torch.stack(outputs, dim=1).to(x.dtype)), h
