"""Recurrent cells over time, one step after the other. Slow and plainly right."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def _recurrent(h: Tensor, w_hh: Tensor, gates: int) -> Tensor:
    """R h as [B, G·H]; heads [H, G·Dh, Dh] read only their own part of h."""
    if w_hh.ndim == 2:
        return h @ w_hh.T
    heads, _, size = w_hh.shape
    by_head = torch.einsum("bnd,ngd->bng", h.unflatten(-1, (heads, size)), w_hh)
    return by_head.unflatten(-1, (gates, size)).transpose(1, 2).flatten(1)


def rnn_tanh(pre: Tensor, rec: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    """h = tanh(W x + R h)."""
    return (torch.tanh(pre + rec),)


def lstm(pre: Tensor, rec: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    """c = σ(f) c + σ(i) tanh(g), h = σ(o) tanh(c)."""
    i, f, g, o = (pre + rec).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru(pre: Tensor, rec: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    """n = tanh(W x + r ⊙ R h), h = (1 − z) n + z h."""
    (pre_r, pre_z, pre_n), (rec_r, rec_z, rec_n) = pre.chunk(3, dim=-1), rec.chunk(3, dim=-1)
    r, z = torch.sigmoid(pre_r + rec_r), torch.sigmoid(pre_z + rec_z)
    return ((1 - z) * torch.tanh(pre_n + r * rec_n) + z * h,)


def slstm(pre: Tensor, rec: Tensor, h: Tensor, c: Tensor, n: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    """c = f c + i tanh(z), n = f n + i, h = σ(o) c / n with i = exp(ĩ − m), f = σ(f̃) exp(m_past − m)."""
    i, f, z, o = (pre + rec).chunk(4, dim=-1)
    f = F.logsigmoid(f) + m
    m = torch.maximum(f, i)
    i, f = torch.exp(i - m), torch.exp(f - m)
    c, n = f * c + i * torch.tanh(z), f * n + i
    return torch.sigmoid(o) * c / n, c, n, m


_STEPS: Mapping[str, tuple[int, Callable[..., tuple[Tensor, ...]]]] = {
    "rnn_tanh": (1, rnn_tanh),
    "lstm": (4, lstm),
    "gru": (3, gru),
    "slstm": (4, slstm),
}


def fused_rnn(
    cell: str,
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    state: tuple[Tensor, ...],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The cell over time in the precision of its inputs; see :func:`kernels.fused_rnn`."""
    gates, step = _STEPS[cell]
    pre = F.linear(x, w_ih, b_ih)
    outputs = []
    for t in range(x.shape[1]):
        rec = _recurrent(state[0], w_hh, gates)
        state = step(pre[:, t], rec if b_hh is None else rec + b_hh, *state)
        outputs.append(state[0])
    return torch.stack(outputs, dim=1), state
