"""Gated RNNs with a fixed linear memory of Legendre coefficients: HiPPO-LegS and LMU."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.mixers.base import ObservedMixer, wide
from workloads.mixers.cells import output_map
from workloads.mixers.options.memory import LMU as LMUOptions
from workloads.mixers.options.memory import HippoLegS as HippoOptions

State = dict[str, Tensor]


@cache
def legs_matrices(size: int) -> tuple[Tensor, Tensor]:
    """HiPPO-LegS: A [N, N] and B [N] of m' = (A m + B u) / t, float64 (HiPPO eq. 3)."""
    n = torch.arange(size, dtype=torch.float64)
    root = (2 * n + 1).sqrt()
    return -(torch.outer(root, root).tril(-1) + torch.diag(n + 1)), root


def legt_matrices(size: int) -> tuple[Tensor, Tensor]:
    """LMU: A [N, N] and B [N] of θ m' = A m + B u, float64 (LMU eq. 2)."""
    n = torch.arange(size, dtype=torch.float64)
    sign = 1 - 2 * (n % 2)
    lower = -torch.outer(sign, sign)
    a = torch.where(n[:, None] < n, torch.tensor(-1.0, dtype=torch.float64), lower)
    return (2 * n[:, None] + 1) * a, (2 * n + 1) * sign


@cache
def legt_hold(size: int, theta: float) -> tuple[Tensor, Tensor]:
    """LMU's matrices for one step of 1/θ, exact for an input that is constant over the step, float64."""
    a, b = legt_matrices(size)
    decay = torch.linalg.matrix_exp(a / theta)
    return decay, torch.linalg.solve(a, (decay - torch.eye(size, dtype=a.dtype)) @ b)


class _LegendreRNN(ObservedMixer):
    """The frame of both; subclasses advance the memory."""

    def __init__(self, d_model: int, options: HippoOptions | LMUOptions) -> None:
        super().__init__()
        self.d_model, self.hidden_size = d_model, options.hidden_size or d_model
        self.signals, self.memory_size = options.signals, options.memory_size
        flat = options.signals * options.memory_size
        # signal, candidate and gate, in this order, where a map reads x
        self.from_x = nn.Linear(d_model, options.signals + 2 * self.hidden_size)
        self.signal = nn.Linear(self.hidden_size, options.signals, bias=False)
        self.from_memory = nn.Linear(flat, 2 * self.hidden_size, bias=False)
        self.out = output_map(options.hidden_size, d_model)
        bound = (d_model + self.hidden_size) ** -0.5
        nn.init.uniform_(self.from_x.weight.data[: self.signals], -bound, bound)
        nn.init.uniform_(self.signal.weight, -bound, bound)
        nn.init.xavier_uniform_(self.from_x.weight.data[self.signals :])
        nn.init.xavier_uniform_(self.from_memory.weight)
        nn.init.zeros_(self.from_x.bias)

    def start(self, x: Tensor) -> State:
        """Everything before the first step is 0."""
        h = wide(x.new_zeros(x.shape[0], self.hidden_size))
        return {"h": h, "memory": h.new_zeros(x.shape[0], self.signals, self.memory_size)}

    def advance(self, state: State, u: Tensor) -> State:
        """The memory after the signal u [B, M], and what else it carries."""
        raise TypeError(f"{type(self).__name__} has no memory")

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], state by name)."""
        state = dict(state or self.start(x))
        h, sizes = state["h"], [self.signals, 2 * self.hidden_size]
        signal, from_memory = wide(self.signal.weight), wide(self.from_memory.weight)
        outputs, gates = [], []
        for step in wide(self.from_x(x)).unbind(1):
            into_signal, into_gates = step.split(sizes, dim=-1)
            state |= self.advance(state, into_signal + F.linear(h, signal))
            mixed = into_gates + F.linear(state["memory"].flatten(1), from_memory)
            candidate, gate = mixed.chunk(2, dim=-1)
            h = h + gate.sigmoid() * (candidate.tanh() - h)
            outputs.append(h)
            gates.append(gate)
        if self.record_gates:
            self.note_gate(F.logsigmoid(-torch.stack(gates, dim=1)))
        return self.out(torch.stack(outputs, dim=1).to(x.dtype)), state | {"h": h}


class HippoLegS(_LegendreRNN):
    """HiPPO-LegS RNN; see the options for the formula."""

    def start(self, x: Tensor) -> State:
        """And no step has been taken."""
        return super().start(x) | {"count": torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)}

    def advance(self, state: State, u: Tensor) -> State:
        """The bilinear step; the first sample is stored as it is."""
        memory, count = state["memory"], state["count"]
        k = count.clamp(min=1)[:, None, None].to(u.dtype)
        a, b = (matrix.to(u) for matrix in legs_matrices(self.memory_size))
        right = memory + memory @ a.T / (2 * k) + u[..., None] * b / k
        left = torch.eye(self.memory_size, dtype=u.dtype, device=u.device) - a / (2 * k)
        later = torch.linalg.solve_triangular(left, right.transpose(1, 2), upper=False).transpose(1, 2)
        first = F.pad(u[..., None], (0, self.memory_size - 1))
        return {"memory": torch.where((count == 0)[:, None, None], first, later), "count": count + 1}


class LMU(_LegendreRNN):
    """Legendre memory unit; see the options for the formula."""

    def __init__(self, d_model: int, options: LMUOptions) -> None:
        super().__init__(d_model, options)
        self.theta = options.theta

    def advance(self, state: State, u: Tensor) -> State:
        """One step of the window's linear system."""
        decay, write = (matrix.to(u) for matrix in legt_hold(self.memory_size, self.theta))
        return {"memory": state["memory"] @ decay.T + u[..., None] * write}
