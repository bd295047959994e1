"""One step of each recurrent cell, forward and backward, on the pre-activations.

``pre`` is W x + b_ih and ``rec`` is R h + b_hh, both [..., G·D] with the G gates one after the other; a state is a
tuple of [..., D]. Each forward returns the new state and what its backward needs; each backward takes the gradient of
the new state and returns those of ``pre``, of ``rec`` and of the old state without the path through ``rec``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

State = tuple[Tensor, ...]
Forward = Callable[[Tensor, Tensor, State], tuple[State, State]]
Backward = Callable[[State, State], tuple[Tensor, Tensor, State]]


@dataclass(frozen=True)
class Cell:
    """A cell's shape and its two functions; ``empty`` is the value of each state tensor before the first step."""

    gates: int
    states: tuple[str, ...]
    empty: tuple[float, ...]
    forward: Forward
    backward: Backward


def _dsigmoid(y: Tensor) -> Tensor:
    return y * (1 - y)


def _tanh(pre: Tensor, rec: Tensor, state: State) -> tuple[State, State]:
    h = torch.tanh(pre + rec)
    return (h,), (h,)


def _tanh_backward(dstate: State, saved: State) -> tuple[Tensor, Tensor, State]:
    (dh,), (h,) = dstate, saved
    dpre = dh * (1 - h * h)
    return dpre, dpre, (torch.zeros_like(dh),)


def _lstm(pre: Tensor, rec: Tensor, state: State) -> tuple[State, State]:
    _, c_past = state
    i, f, g, o = (pre + rec).chunk(4, dim=-1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    c = f * c_past + i * g
    squashed = c.tanh()
    return (o * squashed, c), (i, f, g, o, squashed, c_past)


def _lstm_backward(dstate: State, saved: State) -> tuple[Tensor, Tensor, State]:
    (dh, dc), (i, f, g, o, squashed, c_past) = dstate, saved
    dc = dc + dh * o * (1 - squashed * squashed)
    parts = (dc * g * _dsigmoid(i), dc * c_past * _dsigmoid(f), dc * i * (1 - g * g), dh * squashed * _dsigmoid(o))
    dpre = torch.cat(parts, dim=-1)
    return dpre, dpre, (torch.zeros_like(dh), dc * f)


def _gru(pre: Tensor, rec: Tensor, state: State) -> tuple[State, State]:
    (h_past,) = state
    (pre_r, pre_z, pre_n), (rec_r, rec_z, rec_n) = pre.chunk(3, dim=-1), rec.chunk(3, dim=-1)
    r, z = (pre_r + rec_r).sigmoid(), (pre_z + rec_z).sigmoid()
    n = (pre_n + r * rec_n).tanh()
    return (n + z * (h_past - n),), (r, z, n, rec_n, h_past)


def _gru_backward(dstate: State, saved: State) -> tuple[Tensor, Tensor, State]:
    (dh,), (r, z, n, rec_n, h_past) = dstate, saved
    dn = dh * (1 - z) * (1 - n * n)
    dr, dz = dn * rec_n * _dsigmoid(r), dh * (h_past - n) * _dsigmoid(z)
    return torch.cat([dr, dz, dn], dim=-1), torch.cat([dr, dz, dn * r], dim=-1), (dh * z,)


def _slstm(pre: Tensor, rec: Tensor, state: State) -> tuple[State, State]:
    _, c_past, n_past, m_past = state
    i_log, f_raw, z, o = (pre + rec).chunk(4, dim=-1)
    f_log = F.logsigmoid(f_raw) + m_past
    m = torch.maximum(f_log, i_log)
    i, f, z, o = (i_log - m).exp(), (f_log - m).exp(), z.tanh(), o.sigmoid()
    c, n = f * c_past + i * z, f * n_past + i
    return (o * c / n, c, n, m), (i, f, z, o, c, n, c_past, n_past, f_raw, f_log, i_log)


def _slstm_backward(dstate: State, saved: State) -> tuple[Tensor, Tensor, State]:
    dh, dc, dn, dm = dstate
    i, f, z, o, c, n, c_past, n_past, f_raw, f_log, i_log = saved
    dc, dn = dc + dh * o / n, dn - dh * o * c / (n * n)
    di, df = (dc * z + dn) * i, (dc * c_past + dn * n_past) * f
    dm = dm - di - df
    # the larger of the two set the stabiliser; equal ones share it, as torch.maximum has it
    by_forget = (f_log > i_log).to(dm.dtype) + 0.5 * (f_log == i_log).to(dm.dtype)
    df = df + dm * by_forget
    parts = (di + dm * (1 - by_forget), df * torch.sigmoid(-f_raw), dc * i * (1 - z * z), dh * c / n * _dsigmoid(o))
    dpre = torch.cat(parts, dim=-1)
    return dpre, dpre, (torch.zeros_like(dh), dc * f, dn * f, df)


CELLS: Mapping[str, Cell] = MappingProxyType(
    {
        "rnn_tanh": Cell(1, ("h",), (0.0,), _tanh, _tanh_backward),
        "lstm": Cell(4, ("h", "c"), (0.0, 0.0), _lstm, _lstm_backward),
        "gru": Cell(3, ("h",), (0.0,), _gru, _gru_backward),
        "slstm": Cell(4, ("h", "c", "n", "m"), (0.0, 0.0, 0.0, -torch.inf), _slstm, _slstm_backward),
    }
)
