"""Gated linear attention as a PyTorch operator: the recurrence in C where that could be built, else in chunks.

The recurrence takes 5·K·V operations a step, fewer than a chunk's products, and keeps its state in the cache, so on a
CPU it is also the faster of the two. An operator of ``torch.library``, so that ``torch.compile`` takes it whole.
"""

from typing import Any

import torch
from torch import Tensor

from kernels.chunk_gla import chunked, native


@torch.library.custom_op("orch_kernels::gla", mutates_args=())
def _gla(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, h0: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    o, states = native.forward(q, k, v, log_decay, h0)
    return o, states[:, :, -1].clone(), states


@torch.library.custom_op("orch_kernels::gla_backward", mutates_args=())
def _gla_backward(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, states: Tensor, do: Tensor, dlast: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return native.backward(q, k, v, log_decay, states, do, dlast)


@_gla.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, h0: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    batch, steps, heads, keys = k.shape
    states = v.new_empty(batch, heads, -(-steps // native.SPAN) + 1, keys, v.shape[-1])
    return v.new_empty(v.shape), v.new_empty(states[:, :, 0].shape), states


@_gla_backward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, states: Tensor, do: Tensor, dlast: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dq, dk, dv, dlog, dh0 = (x.new_empty(x.shape) for x in (q, k, v, log_decay, states[:, :, 0]))
    return dq, dk, dv, dlog, dh0


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    q, k, v, log_decay, h0 = inputs
    ctx.has_h0 = h0 is not None
    ctx.save_for_backward(q, k, v, log_decay, output[2])
    ctx.set_materialize_grads(False)  # the states leave no trace in the gradient, and are large


def _differentiate(
    ctx: Any, do: Tensor | None, dlast: Tensor | None, dstates: Tensor | None
) -> tuple[Tensor | None, ...]:
    v, states = ctx.saved_tensors[2], ctx.saved_tensors[-1]
    do = torch.zeros_like(v) if do is None else do
    dlast = torch.zeros_like(states[:, :, 0]) if dlast is None else dlast
    dq, dk, dv, dlog, dh0 = _gla_backward(*ctx.saved_tensors, do, dlast)
    return dq, dk, dv, dlog, dh0 if ctx.has_h0 else None


_gla.register_autograd(_differentiate, setup_context=_save)


def chunk_gla(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, h0: Tensor | None = None, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """S_t = diag(exp(g_t)) S_{t−1} + k_t v_tᵀ, o_t = q_t S_t, in float32 or wider; see :func:`kernels.chunk_gla`."""
    inner = torch.promote_types(torch.promote_types(k.dtype, v.dtype), torch.float32)
    q_wide, k_wide, v_wide, g_wide = (x.to(inner) for x in (q, k, v, log_decay))
    first = None if h0 is None else h0.to(inner)
    if not native.is_available(q_wide):
        return chunked.chunk_gla(q, k, v, log_decay, h0, chunk)
    o, last, _ = _gla(q_wide, k_wide, v_wide, g_wide, first)
    return o.to(v.dtype), last
