"""The gated delta rule in C: the recurrence itself, with the state in the cache."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from kernels.native import call, can_run, empty, integers, parallel, rows, strides

_SOURCE = Path(__file__).with_name("recurrence.c")
SPAN = 64
"""Steps between two states that the gradient starts from; the SPAN of vectors.h."""
_BLOCK_BYTES = 256  # a BLOCK of vectors.h
_GRAIN = 1 << 18  # multiplications: below this a thread costs more than it brings


def is_available(x: Tensor) -> bool:
    """Whether the C form can take ``x``."""
    return can_run(_SOURCE, x)


def forward(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor, h0: Tensor | None) -> tuple[Tensor, Tensor]:
    """(o [B, T, H, V], states [B, H, N + 1, K, V] before each of the N spans of SPAN steps and at the end)."""
    q, k, v = map(rows, (q, k, v))
    batch, steps, heads, keys = k.shape
    values = v.shape[-1]
    o = empty(batch, steps, heads, values, dtype=v.dtype)
    states = empty(batch, heads, -(-steps // SPAN) + 1, keys, values, dtype=v.dtype)
    states[:, :, 0] = 0 if h0 is None else h0
    size = integers(heads, steps, keys, values)

    def work(first: int, end: int) -> None:
        tensors = [part for x in (q, k, v, beta[..., None], decay[..., None], o) for part in (x, strides(x))]
        call(_SOURCE, "forward", v.dtype, *tensors, states, size, ctypes.c_int64(first), ctypes.c_int64(end))

    blocks = -(-values * v.element_size() // _BLOCK_BYTES)
    parallel(work, batch * heads * blocks, grain=-(-_GRAIN * blocks // max(steps * keys * values, 1)))
    return o, states


def backward(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor, states: Tensor, do: Tensor, dlast: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(dq, dk, dv, dbeta, ddecay, dh0)."""
    q, k, v, do = map(rows, (q, k, v, do))
    batch, steps, heads, keys = k.shape
    dq, dk, dv, dbeta, ddecay = (empty(*x.shape, dtype=x.dtype) for x in (q, k, v, beta, decay))
    dstate = dlast.clone(memory_format=torch.contiguous_format)
    size = integers(heads, steps, keys, v.shape[-1])

    def work(first: int, end: int) -> None:
        read = [part for x in (q, k, v, beta[..., None], decay[..., None], do) for part in (x, strides(x))]
        written = [part for x in (dq, dk, dv, dbeta[..., None], ddecay[..., None]) for part in (x, strides(x))]
        bounds = (ctypes.c_int64(first), ctypes.c_int64(end))
        call(_SOURCE, "backward", v.dtype, *read, states, *written, dstate, size, *bounds)

    parallel(work, batch * heads, grain=-(-_GRAIN // max(steps * keys * v.shape[-1], 1)))
    return dq, dk, dv, dbeta, ddecay, dstate
