"""Gated delta rule: a matrix state a head that overwrites what a key held before, under a scalar decay."""

from torch import Tensor

from kernels.backend import Backend, pick
from kernels.gated_delta_rule import cpu, reference

__all__ = ["gated_delta_rule"]


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor,
    h0: Tensor | None = None,
    *,
    chunk: int = 64,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """S = exp(log_decay_t) S_{t−1}; S_t = S + k_t (β_t (v_t − Sᵀ k_t))ᵀ; o_t = q_t S_t, without any hidden scaling.

    The step along k_t has eigenvalue 1 − β_t |k_t|²: normalise the keys, and keep 0 ≤ β ≤ 2, or the state grows
    without bound. ``log_decay`` of 0 throughout is the ungated delta rule (DeltaNet).

    Args:
        q: queries, [B, T, H, K]; float16, bfloat16, float32 or float64. Any strides, here and below.
        k: keys, [B, T, H, K], of length about 1.
        v: values, [B, T, H, V].
        beta: how much of the error is written, [B, T, H].
        log_decay: natural logarithm of the decay, ≤ 0 and possibly −inf, [B, T, H]; keep it in float32.
        h0: state before the first step, [B, H, K, V]; zeros if None.
        chunk: steps solved together; sets the cost, not the result.
        backend: "auto", "reference", "cpu" or "triton"; see :func:`kernels.backend.pick`.

    Returns:
        o [B, T, H, V] in the dtype of ``v``, and the last state [B, H, K, V] in float32 or wider. The reference
        computes, and returns its state, in the precision of its inputs.

    Memory: B·H·(T/C)·K·V states besides inputs and outputs, kept for the gradient. FLOPs forward, chunked:
    2·B·H·T·(C(2K + V)/2 + C(K + V)/2 + 3·K·V), C being ``chunk``; backward about twice that.

    Raises:
        ValueError: shapes or devices disagree, T is 0, ``chunk`` is below 1, or the backend cannot run.

    Source: Gated DeltaNet (arXiv 2412.06464, eq. 10 and sec. 3.3); DeltaNet's WY form (2406.06484, sec. 3).
    """
    _check(q, k, v, beta, log_decay, h0, chunk)
    match pick(backend, q):
        case "reference":
            o, last = reference.gated_delta_rule(q, k, v, beta, log_decay, h0)
            return o.to(v.dtype), last
        case "triton":
            # Triton is absent from CPU-only installs
            from kernels.gated_delta_rule.triton_impl import gated_delta_rule as on_triton

            return on_triton(q, k, v, beta, log_decay, h0, chunk)
    return cpu.gated_delta_rule(q, k, v, beta, log_decay, h0, chunk)


def _check(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, h0: Tensor | None, chunk: int) -> None:
    if q.ndim != 4 or k.shape != q.shape:
        raise ValueError(
            f"gated_delta_rule: q and k must share one shape [B, T, H, K]; got {tuple(q.shape)} and {tuple(k.shape)}"
        )
    batch, steps, heads, keys = q.shape
    if v.ndim != 4 or v.shape[:3] != q.shape[:3]:
        raise ValueError(
            f"gated_delta_rule: v must be [B, T, H, V] with [B, T, H] = {tuple(q.shape[:3])}, got {tuple(v.shape)}"
        )
    for name, gate in (("beta", beta), ("log_decay", log_decay)):
        if gate.shape != q.shape[:3]:
            raise ValueError(
                f"gated_delta_rule: {name} must be [B, T, H] = {tuple(q.shape[:3])}, one number a head and step; "
                f"got {tuple(gate.shape)}"
            )
    if steps == 0:
        raise ValueError(f"gated_delta_rule: needs at least one step, got q of shape {tuple(q.shape)} [B, T, H, K]")
    if h0 is not None and h0.shape != (batch, heads, keys, v.shape[-1]):
        expected = (batch, heads, keys, v.shape[-1])
        raise ValueError(f"gated_delta_rule: h0 must be [B, H, K, V] = {expected}, got {tuple(h0.shape)}")
    if chunk < 1:
        raise ValueError(f"gated_delta_rule: chunk must be at least 1 step, got {chunk}")
    devices = {str(tensor.device) for tensor in (q, k, v, beta, log_decay, h0) if tensor is not None}
    if len(devices) > 1:
        raise ValueError(f"gated_delta_rule: all tensors must be on one device, got {', '.join(sorted(devices))}")
