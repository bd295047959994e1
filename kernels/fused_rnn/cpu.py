"""Recurrent cells over time in PyTorch: its own fused LSTM, GRU and tanh layers where they apply, else a lean loop.

The loop keeps one product and the cell's arithmetic in each step; the products with the input and the gradient of the
recurrent matrix are one product each over all steps. Letters: T steps, N heads (1 for a dense matrix), B rows,
D = H / N, X = G·D.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.fused_rnn.cells import CELLS, State


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, cell: str, pre_TNBX: Tensor, w_NXD: Tensor, b_N1X: Tensor, *state_NBD: Tensor
    ) -> tuple[Tensor, ...]:
        step = CELLS[cell].forward
        state, saved = state_NBD, []
        w_NDX = w_NXD.transpose(1, 2).contiguous()
        y = pre_TNBX.new_empty(*pre_TNBX.shape[:3], w_NXD.shape[-1])
        for t, pre in enumerate(pre_TNBX):
            state, for_backward = step(pre, torch.baddbmm(b_N1X, state[0], w_NDX), state)
            y[t] = state[0]
            saved.append(for_backward)
        ctx.cell, ctx.saved, ctx.first = cell, saved, state_NBD[0]
        ctx.save_for_backward(w_NXD, y)
        return y, *(s.clone() for s in state)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TNBD: Tensor, *dstate_NBD: Tensor) -> tuple[Tensor | None, ...]:
        step = CELLS[ctx.cell].backward
        w_NXD, y = ctx.saved_tensors
        dstate = dstate_NBD
        dpres, drecs = [], []
        for dy, saved in zip(reversed(dy_TNBD), reversed(ctx.saved), strict=True):
            dpre, drec, (dh, *rest) = step((dstate[0] + dy, *dstate[1:]), saved)
            dstate = (torch.baddbmm(dh, drec, w_NXD), *rest)
            dpres.append(dpre)
            drecs.append(drec)
        drec_TNBX, past_TNBD = torch.stack(drecs[::-1]), torch.cat([ctx.first[None], y[:-1]])
        dw_NXD = torch.bmm(drec_TNBX.permute(1, 3, 0, 2).flatten(2), past_TNBD.transpose(0, 1).flatten(1, 2))
        return None, torch.stack(dpres[::-1]), dw_NXD, drec_TNBX.sum(dim=(0, 2))[:, None], *dstate


def _loop(
    cell: str,
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    state: tuple[Tensor, ...],
) -> tuple[Tensor, State]:
    gates = CELLS[cell].gates
    w_NXD = w_hh if w_hh.ndim == 3 else w_hh[None]
    heads, _, size = w_NXD.shape
    pre_BTGND = F.linear(x, w_ih, b_ih).unflatten(-1, (gates, heads, size))
    b = w_hh.new_zeros(gates * heads * size) if b_hh is None else b_hh
    y, *last = _Loop.apply(
        cell,
        pre_BTGND.permute(1, 3, 0, 2, 4).flatten(3),
        w_NXD,
        b.view(gates, heads, size).transpose(0, 1).reshape(heads, 1, -1),
        *(s.unflatten(-1, (heads, size)).transpose(0, 1) for s in state),
    )
    return y.permute(2, 0, 1, 3).flatten(2), tuple(s.transpose(0, 1).flatten(1) for s in last)


def _library(
    cell: str,
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    state: tuple[Tensor, ...],
) -> tuple[Tensor, State]:
    biased = b_ih is not None or b_hh is not None
    zero = w_ih.new_zeros(w_ih.shape[0]) if biased else None
    biases = [b if b is not None else zero for b in (b_ih, b_hh)] if biased else []
    layer = getattr(torch, cell)
    hx = [s[None] for s in state]
    # layers 1, dropout 0, train so that the gradient can be asked for, one direction, batch first
    told = layer(x, hx if cell == "lstm" else hx[0], [w_ih, w_hh, *biases], biased, 1, 0.0, True, False, True)
    return told[0], tuple(s[0] for s in told[1:])


def fused_rnn(
    cell: str,
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    state: tuple[Tensor, ...],
) -> tuple[Tensor, State]:
    """The cell over time in float32 or wider; see :func:`kernels.fused_rnn`."""
    inner = torch.promote_types(torch.promote_types(x.dtype, w_hh.dtype), torch.float32)

    def widen(t: Tensor | None) -> Tensor | None:
        return None if t is None else t.to(inner)

    form = _library if w_hh.ndim == 2 and hasattr(torch, cell) else _loop
    y, last = form(
        cell, x.to(inner), w_ih.to(inner), w_hh.to(inner), widen(b_ih), widen(b_hh), tuple(s.to(inner) for s in state)
    )
    return y.to(x.dtype), last
