"""Gated linear attention: a matrix state a head, with a decay for each key channel."""

from torch import Tensor

from kernels.backend import Backend, pick
from kernels.chunk_gla import cpu, reference

__all__ = ["chunk_gla"]


def chunk_gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    h0: Tensor | None = None,
    *,
    chunk: int = 64,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """S_t = diag(exp(log_decay_t)) S_{t−1} + k_t v_tᵀ and o_t = q_t S_t, without any hidden scaling.

    Scale q by K^(−1/2) beforehand where the model wants it. A decay that is one number a head (RetNet, Mamba-2) is
    ``log_decay.expand``-ed over the keys. Any length works, any split of a sequence gives the same result with the
    state carried, and no factor above 1 is ever formed from a decay: −inf (a gate of 0) is as safe as 0.

    Args:
        q: queries, [B, T, H, K]; float16, bfloat16, float32 or float64. Any strides, here and below.
        k: keys, [B, T, H, K].
        v: values, [B, T, H, V].
        log_decay: natural logarithm of the decay, ≤ 0 and possibly −inf, [B, T, H, K]; keep it in float32: bfloat16
            has no number between 0.996 and 1.
        h0: state before the first step, [B, H, K, V]; zeros if None.
        chunk: steps solved together, rounded up to a power of two; sets the cost, not the result.
        backend: "auto", "reference", "cpu" or "triton"; see :func:`kernels.backend.pick`.

    Returns:
        o [B, T, H, V] in the dtype of ``v``, and the last state [B, H, K, V] in float32 or wider. The reference
        computes, and returns its state, in the precision of its inputs.

    Memory: B·H·(T/C)·K·V states besides inputs and outputs, kept for the gradient. FLOPs forward:
    2·B·H·T·(C(K + V)/2 + 2·K·V), C being ``chunk``; backward about three times that.

    Raises:
        ValueError: shapes or devices disagree, T is 0, ``chunk`` is below 1, or the backend cannot run.

    Source: GLA (arXiv 2312.06635, sec. 3 and 4); also the recurrence of RetNet (2307.08621, eq. 6), HGRN2
    (2404.07904, sec. 3) and Mamba-2 (2405.21060, sec. 6).
    """
    _check(q, k, v, log_decay, h0, chunk)
    match pick(backend, q):
        case "reference":
            o, last = reference.chunk_gla(q, k, v, log_decay, h0)
            return o.to(v.dtype), last
        case "triton":
            # Triton is absent from CPU-only installs
            from kernels.chunk_gla.triton_impl import chunk_gla as on_triton

            return on_triton(q, k, v, log_decay, h0, chunk)
    return cpu.chunk_gla(q, k, v, log_decay, h0, chunk)


def _check(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, h0: Tensor | None, chunk: int) -> None:
    if q.ndim != 4 or k.shape != q.shape or log_decay.shape != q.shape:
        raise ValueError(
            f"chunk_gla: q, k and log_decay must share one shape [B, T, H, K]; got q {tuple(q.shape)}, "
            f"k {tuple(k.shape)}, log_decay {tuple(log_decay.shape)} (expand a decay that is shared by the keys)"
        )
    if v.ndim != 4 or v.shape[:3] != q.shape[:3]:
        raise ValueError(
            f"chunk_gla: v must be [B, T, H, V] with [B, T, H] = {tuple(q.shape[:3])}, got {tuple(v.shape)}"
        )
    batch, steps, heads, keys = q.shape
    if steps == 0:
        raise ValueError(f"chunk_gla: needs at least one step, got q of shape {tuple(q.shape)} [B, T, H, K]")
    if h0 is not None and h0.shape != (batch, heads, keys, v.shape[-1]):
        expected = (batch, heads, keys, v.shape[-1])
        raise ValueError(f"chunk_gla: h0 must be [B, H, K, V] = {expected}, got {tuple(h0.shape)}")
    if chunk < 1:
        raise ValueError(f"chunk_gla: chunk must be at least 1 step, got {chunk}")
    devices = {str(tensor.device) for tensor in (q, k, v, log_decay, h0) if tensor is not None}
    if len(devices) > 1:
        raise ValueError(f"chunk_gla: all tensors must be on one device, got {', '.join(sorted(devices))}")
