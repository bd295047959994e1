"""Recurrent cells over time, with the recurrent matrix kept close to the arithmetic."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.backend import Backend, pick
from kernels.fused_rnn import cpu, reference
from kernels.fused_rnn.cells import CELLS, Cell

__all__ = ["fused_rnn"]


def fused_rnn(
    cell: str,
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    h0: Tensor | Sequence[Tensor] | None = None,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
    """A recurrent layer over a whole sequence, in the weight layout and gate order of ``torch.nn``.

    With a = W x_t + b_ih, r = R h_{t−1} + b_hh, split into G gates (order in brackets):

    * "rnn_tanh", G = 1: h = tanh(a + r). As ``nn.RNN``. State h.
    * "lstm", G = 4 (i, f, g, o): c = σ(f) c + σ(i) tanh(g); h = σ(o) tanh(c). As ``nn.LSTM``. State (h, c).
    * "gru", G = 3 (r, z, n): n = tanh(a_n + σ(r) ⊙ r_n); h = (1 − σ(z)) n + σ(z) h. As ``nn.GRU``. State h.
    * "slstm", G = 4 (i, f, z, o): with f' = log σ(f) + m: m ← max(f', i); c ← e^{f'−m} c + e^{i−m} tanh(z);
      n ← e^{f'−m} n + e^{i−m}; h = σ(o) c / n. State (h, c, n, m), where m is the logarithm of the scale that c and n
      are divided by. Empty is c = n = h = 0 and m = −∞: after a first step with n = 0 and a finite m, n may be 0.

    Args:
        cell: one of the above.
        x: input, [B, T, I]; float16, bfloat16, float32 or float64. Any strides, here and below.
        w_ih: W, [G·H, I], the gates one after the other.
        w_hh: R, [G·H, H]; or block-diagonal with N heads of size D = H / N, [N, G·D, D]: the rows of a head are its
            gates one after the other, and head j is h[:, j·D : (j + 1)·D].
        b_ih: [G·H] or None.
        b_hh: [G·H] or None; inside the product with the reset gate in "gru", else only added to ``b_ih``.
        h0: state before the first step: the tensors named above, each [B, H], as a tuple where there is more than
            one; empty if None.
        backend: "auto", "reference", "cpu" or "triton"; see :func:`kernels.backend.pick`.

    Returns:
        y [B, T, H], every h, in the dtype of ``x``; and the state after the last step in the form of ``h0``, in
        float32 or wider. The reference computes, and returns its state, in the precision of its inputs.

    Memory: B·T·G·H pre-activations, and as much again for the gradient. FLOPs forward: 2·B·T·G·H·(I + H / N);
    backward twice that. The steps run one after the other.

    Raises:
        ValueError: unknown cell, shapes or devices disagree, T is 0, or the backend cannot run.

    Source: LSTM and GRU as in Chung et al. (arXiv 1412.3555, sec. 3) and cuDNN; sLSTM: xLSTM (2405.04517, eq. 8-17);
    the kernels follow FlashRNN (2412.07752).
    """
    shape = _check(cell, x, w_ih, w_hh, b_ih, b_hh)
    state = _state(CELLS[cell], cell, x, w_hh, shape, h0)
    form = pick(backend, x)
    if form == "reference":
        y, last = reference.fused_rnn(cell, x, w_ih, w_hh, b_ih, b_hh, state)
    elif form == "triton":
        # Triton is absent from CPU-only installs
        from kernels.fused_rnn.triton_impl import fused_rnn as on_triton

        y, last = on_triton(cell, x, w_ih, w_hh, b_ih, b_hh, state)
    else:
        y, last = cpu.fused_rnn(cell, x, w_ih, w_hh, b_ih, b_hh, state)
    return y, last if len(last) > 1 else last[0]


def _check(
    cell: str, x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
) -> tuple[int, int]:
    """[B, H], after a check of everything but the state."""
    if cell not in CELLS:
        raise ValueError(f"fused_rnn: cell must be one of {', '.join(CELLS)}; got {cell!r}")
    gates = CELLS[cell].gates
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(f"fused_rnn: x must be [B, T, I] with at least one step, got {tuple(x.shape)}")
    if w_hh.ndim not in (2, 3) or w_hh.shape[-2] != gates * w_hh.shape[-1]:
        raise ValueError(
            f"fused_rnn: w_hh of {cell!r} must be [{gates}·H, H], or [N, {gates}·D, D] for N heads of size D = H / N; "
            f"got {tuple(w_hh.shape)}"
        )
    hidden = w_hh.shape[-1] * (w_hh.shape[0] if w_hh.ndim == 3 else 1)
    if w_ih.shape != (gates * hidden, x.shape[2]):
        raise ValueError(
            f"fused_rnn: w_ih of {cell!r} must be [{gates}·H, I] = {(gates * hidden, x.shape[2])} for H = {hidden} "
            f"and x {tuple(x.shape)}; got {tuple(w_ih.shape)}"
        )
    for name, bias in (("b_ih", b_ih), ("b_hh", b_hh)):
        if bias is not None and bias.shape != (gates * hidden,):
            raise ValueError(f"fused_rnn: {name} must be [{gates}·H] = ({gates * hidden},), got {tuple(bias.shape)}")
    devices = {str(tensor.device) for tensor in (x, w_ih, w_hh, b_ih, b_hh) if tensor is not None}
    if len(devices) > 1:
        raise ValueError(f"fused_rnn: all tensors must be on one device, got {', '.join(sorted(devices))}")
    return x.shape[0], hidden


def _state(
    kind: Cell, cell: str, x: Tensor, w_hh: Tensor, shape: tuple[int, int], h0: Tensor | Sequence[Tensor] | None
) -> tuple[Tensor, ...]:
    if h0 is None:
        dtype = torch.promote_types(x.dtype, w_hh.dtype)
        return tuple(torch.full(shape, value, dtype=dtype, device=x.device) for value in kind.empty)
    state = (h0,) if isinstance(h0, Tensor) else tuple(h0)
    if len(state) != len(kind.states) or any(s.shape != shape for s in state):
        raise ValueError(
            f"fused_rnn: the state of {cell!r} is ({', '.join(kind.states)}), each [B, H] = {shape}; "
            f"got {', '.join(str(tuple(s.shape)) for s in state)}"
        )
    return state
