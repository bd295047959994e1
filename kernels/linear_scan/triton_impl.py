"""The element-wise scan in Triton: a pass for the chunks' ends, a short one for the carries, a pass for the states.

Legend: o_ offsets, m_ masks, b_ a block in registers [BD], of the accumulator's type. Complex numbers are stored as
pairs; b_*i is an imaginary part and is not touched where COMPLEX is false. A step's place in time is
``t = T − 1 − s if REVERSE else s``. The backward pass is the same recurrence run the other way, with the decay of the
step before it in that order (LAG), conjugated:

    g[s] = dh[s] + conj(a[s−1]) g[s−1],   dx = g,   da[s] = g[s] conj(h[s+1])

so both directions share the first two kernels. 5 words of memory an element forward, 7 backward.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.aot import AotSpec

_STEPS = 64  # of a chunk
_CHANNELS = 128  # of a program


@triton.jit
def _step(
    a_ptr, x_ptr, row_a, row_x, s, T, stride_at, stride_xt, o_c, m_d, b_h, b_hi,
    REVERSE: tl.constexpr, LAG: tl.constexpr, COMPLEX: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """(a, h) after step s: h ← a h + x."""
    t = T - 1 - s if REVERSE else s
    t_a = t
    m_a = m_d
    if LAG:
        t_a = t + 1 if REVERSE else t - 1
        m_a = m_d & (o_c * 0 + s > 0)  # a block, since in the interpreter s is a plain int
    b_a = tl.load(a_ptr + row_a + t_a * stride_at + o_c, mask=m_a, other=0.0).to(ACC)
    b_x = tl.load(x_ptr + row_x + t * stride_xt + o_c, mask=m_d, other=0.0).to(ACC)
    b_ai = b_a * 0
    if COMPLEX:
        b_ai = tl.load(a_ptr + row_a + t_a * stride_at + o_c + 1, mask=m_a, other=0.0).to(ACC)
        b_xi = tl.load(x_ptr + row_x + t * stride_xt + o_c + 1, mask=m_d, other=0.0).to(ACC)
        if LAG:
            b_ai = -b_ai
        b_new = b_a * b_h - b_ai * b_hi + b_x
        b_hi = b_a * b_hi + b_ai * b_h + b_xi
    else:
        b_new = b_a * b_h + b_x
    return b_a, b_ai, b_new, b_hi


@triton.jit(do_not_specialize=["T", "N"])
def _ends_kernel(
    a_ptr, x_ptr, decay_ptr, end_ptr, T, N, D, stride_ab, stride_at, stride_xb, stride_xt,
    REVERSE: tl.constexpr, LAG: tl.constexpr, COMPLEX: tl.constexpr, ACC: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Of each chunk: the product of its decays, and its last state from an empty first; both [B, N, D]."""
    # int64: batch * T * D passes 2**31 long before memory runs out
    i_d, i_n, i_b = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    o_d = i_d * BD + tl.arange(0, BD)
    m_d = o_d < D
    o_c = o_d * 2 if COMPLEX else o_d
    b_h = tl.zeros([BD], dtype=ACC)
    b_hi = tl.zeros([BD], dtype=ACC)
    b_p = tl.full([BD], 1.0, dtype=ACC)
    b_pi = tl.zeros([BD], dtype=ACC)
    for s in range(i_n * BT, min(T, i_n * BT + BT)):
        b_a, b_ai, b_h, b_hi = _step(
            a_ptr, x_ptr, i_b * stride_ab, i_b * stride_xb, s, T, stride_at, stride_xt, o_c, m_d, b_h, b_hi,
            REVERSE, LAG, COMPLEX, ACC,
        )  # fmt: skip
        b_new = b_p * b_a - b_pi * b_ai
        b_pi = b_p * b_ai + b_pi * b_a
        b_p = b_new
    row = (i_b * N + i_n) * D * (2 if COMPLEX else 1) + o_c
    tl.store(decay_ptr + row, b_p, mask=m_d)
    tl.store(end_ptr + row, b_h, mask=m_d)
    if COMPLEX:
        tl.store(decay_ptr + row + 1, b_pi, mask=m_d)
        tl.store(end_ptr + row + 1, b_hi, mask=m_d)


@triton.jit(do_not_specialize=["N"])
def _carry_kernel(
    decay_ptr, end_ptr, h0_ptr, N, D, HAS_H0: tl.constexpr, COMPLEX: tl.constexpr, ACC: tl.constexpr, BD: tl.constexpr
):
    """Turn ``end`` into the state before each chunk, in place."""
    i_d, i_b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    o_d = i_d * BD + tl.arange(0, BD)
    m_d = o_d < D
    o_c = o_d * 2 if COMPLEX else o_d
    words = D * (2 if COMPLEX else 1)
    b_h = tl.zeros([BD], dtype=ACC)
    b_hi = tl.zeros([BD], dtype=ACC)
    if HAS_H0:
        b_h += tl.load(h0_ptr + i_b * words + o_c, mask=m_d, other=0.0).to(ACC)
        if COMPLEX:
            b_hi += tl.load(h0_ptr + i_b * words + o_c + 1, mask=m_d, other=0.0).to(ACC)
    for n in range(N):
        row = (i_b * N + n) * words + o_c
        b_p = tl.load(decay_ptr + row, mask=m_d, other=0.0)
        b_end = tl.load(end_ptr + row, mask=m_d, other=0.0)
        tl.store(end_ptr + row, b_h, mask=m_d)
        if COMPLEX:
            b_pi = tl.load(decay_ptr + row + 1, mask=m_d, other=0.0)
            b_endi = tl.load(end_ptr + row + 1, mask=m_d, other=0.0)
            tl.store(end_ptr + row + 1, b_hi, mask=m_d)
            b_new = b_p * b_h - b_pi * b_hi + b_end
            b_hi = b_p * b_hi + b_pi * b_h + b_endi
            b_h = b_new
        else:
            b_h = b_p * b_h + b_end


@triton.jit(do_not_specialize=["T", "N"])
def _forward_kernel(
    a_ptr, x_ptr, carry_ptr, h_ptr, T, N, D, stride_ab, stride_at, stride_xb, stride_xt,
    REVERSE: tl.constexpr, COMPLEX: tl.constexpr, ACC: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Every state, from the state before its chunk."""
    i_d, i_n, i_b = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    o_d = i_d * BD + tl.arange(0, BD)
    m_d = o_d < D
    o_c = o_d * 2 if COMPLEX else o_d
    words = D * (2 if COMPLEX else 1)
    row = (i_b * N + i_n) * words + o_c
    b_h = tl.load(carry_ptr + row, mask=m_d, other=0.0)
    b_hi = tl.zeros([BD], dtype=ACC)
    if COMPLEX:
        b_hi += tl.load(carry_ptr + row + 1, mask=m_d, other=0.0)
    for s in range(i_n * BT, min(T, i_n * BT + BT)):
        _, _, b_h, b_hi = _step(
            a_ptr, x_ptr, i_b * stride_ab, i_b * stride_xb, s, T, stride_at, stride_xt, o_c, m_d, b_h, b_hi,
            REVERSE, False, COMPLEX, ACC,
        )  # fmt: skip
        t = T - 1 - s if REVERSE else s
        p_h = h_ptr + (i_b * T + t) * words + o_c
        tl.store(p_h, b_h, mask=m_d)
        if COMPLEX:
            tl.store(p_h + 1, b_hi, mask=m_d)


@triton.jit(do_not_specialize=["T", "N"])
def _backward_kernel(
    a_ptr, dh_ptr, carry_ptr, h_ptr, h0_ptr, da_ptr, dx_ptr, T, N, D, stride_ab, stride_at, stride_db, stride_dt,
    HAS_H0: tl.constexpr, REVERSE: tl.constexpr, COMPLEX: tl.constexpr, ACC: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """dx and da of every step, in the order of the backward pass."""
    i_d, i_n, i_b = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    o_d = i_d * BD + tl.arange(0, BD)
    m_d = o_d < D
    o_c = o_d * 2 if COMPLEX else o_d
    words = D * (2 if COMPLEX else 1)
    row = (i_b * N + i_n) * words + o_c
    b_g = tl.load(carry_ptr + row, mask=m_d, other=0.0)
    b_gi = tl.zeros([BD], dtype=ACC)
    if COMPLEX:
        b_gi += tl.load(carry_ptr + row + 1, mask=m_d, other=0.0)
    for s in range(i_n * BT, min(T, i_n * BT + BT)):
        _, _, b_g, b_gi = _step(
            a_ptr, dh_ptr, i_b * stride_ab, i_b * stride_db, s, T, stride_at, stride_dt, o_c, m_d, b_g, b_gi,
            REVERSE, True, COMPLEX, ACC,
        )  # fmt: skip
        t = T - 1 - s if REVERSE else s
        t_past = t - 1 if REVERSE else t + 1
        m_past = m_d & (o_d * 0 + s + 1 < T)
        p_past = h_ptr + (i_b * T + t_past) * words + o_c
        b_past = tl.load(p_past, mask=m_past, other=0.0).to(ACC)
        if HAS_H0:
            m_first = m_d & (o_d * 0 + s + 1 == T)
            b_past += tl.load(h0_ptr + i_b * words + o_c, mask=m_first, other=0.0).to(ACC)
        row_t = (i_b * T + t) * words + o_c
        tl.store(dx_ptr + row_t, b_g, mask=m_d)
        if COMPLEX:
            b_pasti = tl.load(p_past + 1, mask=m_past, other=0.0).to(ACC)
            if HAS_H0:
                b_pasti += tl.load(h0_ptr + i_b * words + o_c + 1, mask=m_first, other=0.0).to(ACC)
            tl.store(dx_ptr + row_t + 1, b_gi, mask=m_d)
            tl.store(da_ptr + row_t, b_g * b_past + b_gi * b_pasti, mask=m_d)
            tl.store(da_ptr + row_t + 1, b_gi * b_past - b_g * b_pasti, mask=m_d)
        else:
            tl.store(da_ptr + row_t, b_g * b_past, mask=m_d)


def _words(x: Tensor) -> Tensor:
    """[B, T, D] (complex: [B, T, D, 2]) with contiguous rows."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def _carries(a: Tensor, x: Tensor, h0: Tensor | None, reverse: bool, lag: bool) -> tuple[Tensor, dict[str, Any]]:
    """The states before each chunk, and the constants that all kernels of a call share."""
    complex_pairs = x.ndim == 4
    batch, steps, channels = x.shape[:3]
    acc = torch.float64 if x.dtype is torch.float64 else torch.float32
    shared = {"COMPLEX": complex_pairs, "ACC": tl.float64 if acc is torch.float64 else tl.float32, "BD": _CHANNELS}
    chunks, blocks = triton.cdiv(steps, _STEPS), triton.cdiv(channels, _CHANNELS)
    decay, carry = (torch.empty(batch, chunks, *x.shape[2:], dtype=acc, device=x.device) for _ in range(2))
    _ends_kernel[(blocks, chunks, batch)](
        a, x, decay, carry, steps, chunks, channels, *a.stride()[:2], *x.stride()[:2],
        REVERSE=reverse, LAG=lag, BT=_STEPS, **shared,
    )  # fmt: skip
    first = carry if h0 is None else h0
    _carry_kernel[(blocks, batch)](decay, carry, first, chunks, channels, HAS_H0=h0 is not None, **shared)
    return carry, shared


class _LinearScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor, h0: Tensor | None, reverse: bool) -> Tensor:
        a_w, x_w, h0_w = _words(a), _words(x), None if h0 is None else _words(h0.contiguous())
        carry, shared = _carries(a_w, x_w, h0_w, reverse, lag=False)
        batch, steps, channels = x.shape
        h = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        chunks = carry.shape[1]
        _forward_kernel[(triton.cdiv(channels, _CHANNELS), chunks, batch)](
            a_w, x_w, carry, _words(h), steps, chunks, channels, *a_w.stride()[:2], *x_w.stride()[:2],
            REVERSE=reverse, BT=_STEPS, **shared,
        )  # fmt: skip
        ctx.save_for_backward(a, h, h0)
        ctx.reverse = reverse
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor | None, ...]:
        a, h, h0 = ctx.saved_tensors
        a_w, dh_w, h0_w = _words(a), _words(dh), None if h0 is None else _words(h0.contiguous())
        carry, shared = _carries(a_w, dh_w, None, not ctx.reverse, lag=True)
        batch, steps, channels = h.shape
        da, dx = (torch.empty(h.shape, dtype=h.dtype, device=h.device) for _ in range(2))
        chunks = carry.shape[1]
        _backward_kernel[(triton.cdiv(channels, _CHANNELS), chunks, batch)](
            a_w, dh_w, carry, _words(h), carry if h0_w is None else h0_w, _words(da), _words(dx),
            steps, chunks, channels, *a_w.stride()[:2], *dh_w.stride()[:2],
            HAS_H0=h0 is not None, REVERSE=not ctx.reverse, BT=_STEPS, **shared,
        )  # fmt: skip
        first = -1 if ctx.reverse else 0
        return da, dx, None if h0 is None else a[:, first].conj() * dx[:, first], None


def linear_scan(a: Tensor, x: Tensor, h0: Tensor | None = None, reverse: bool = False) -> Tensor:
    """h_t = a_t ⊙ h_{t−1} + x_t, accumulated in float32 or wider; see :func:`kernels.linear_scan`."""
    result = torch.promote_types(a.dtype, x.dtype)
    return _LinearScan.apply(a.to(result), x.to(result), None if h0 is None else h0.to(result), reverse)


def _specs() -> list[AotSpec]:
    sizes = {"T": "i32", "N": "i32", "D": "i32"}
    strides = dict.fromkeys(("stride_ab", "stride_at", "stride_xb", "stride_xt"), "i32")
    kinds = (("fp32", "*fp32", False), ("bf16", "*bf16", False), ("complex64", "*fp32", True))
    specs = []
    for (name, kind, is_complex), reverse in [(k, False) for k in kinds] + [(kinds[0], True)]:
        shared = {"COMPLEX": is_complex, "ACC": tl.float32, "BD": _CHANNELS}
        steps = shared | {"REVERSE": reverse, "BT": _STEPS}
        name += " reverse" * reverse
        ends = {"a_ptr": kind, "x_ptr": kind, "decay_ptr": "*fp32", "end_ptr": "*fp32"} | sizes | strides
        forward = {"a_ptr": kind, "x_ptr": kind, "carry_ptr": "*fp32", "h_ptr": kind} | sizes | strides
        backward = dict.fromkeys(("a_ptr", "dh_ptr", "h_ptr", "h0_ptr", "da_ptr", "dx_ptr"), kind) | sizes
        backward |= {"carry_ptr": "*fp32"}
        backward |= dict.fromkeys(("stride_ab", "stride_at", "stride_db", "stride_dt"), "i32")
        carry = {"decay_ptr": "*fp32", "end_ptr": "*fp32", "h0_ptr": kind, "N": "i32", "D": "i32"}
        specs += [
            AotSpec(f"linear_scan.ends {name}", _ends_kernel, ends, steps | {"LAG": False}),
            AotSpec(f"linear_scan.ends_lag {name}", _ends_kernel, ends, steps | {"LAG": True}),
            AotSpec(f"linear_scan.carry {name}", _carry_kernel, carry, shared | {"HAS_H0": True}),
            AotSpec(f"linear_scan.forward {name}", _forward_kernel, forward, steps),
            AotSpec(f"linear_scan.backward {name}", _backward_kernel, backward, steps | {"HAS_H0": True}),
        ]
    return specs


AOT_SPECS = _specs()
