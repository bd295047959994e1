"""Gated linear attention in Triton, in chunks of BT steps and sub-chunks of BC.

Legend: o_ offsets, m_ masks, b_ a block in registers (float32), i_ program indices. N chunks; G is the running sum of
the log decays within a chunk. Every decay is exp(min(x, 0)) of a difference of two G, the later minus the earlier, so
no factor exceeds 1: between sub-chunks both sides are taken relative to a row that lies between them, within one the
pairs are formed one by one. That row is always the first of the later or the last of the earlier sub-chunk, so no
output depends on a later input, not even in its last bit.

    forward    sums: G;  states: S_n before each chunk;  scores: A_ij = Σ_d q_id k_jd exp(G_id − G_jd)
               outputs: O = (Q e^G) S_n + A V
    backward   states, reversed: dS_n;  dscores: dA = dO Vᵀ
               outputs, reversed: dV = (K e^{G_end − G}) dS_{n+1} + Aᵀ dO
               gradients: dQ, dK, dG = q dq − k dk, and S_{n+1} ⊙ dS_{n+1} at a chunk's last row
               sums, reversed: dg from dG
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.aot import AotSpec
from kernels.backend import dot_precision
from kernels.chunk_gla import cpu

_FLOOR = -60.0  # of a log decay: e^-60 is nothing beside any other step, and −inf has no differences
_BC = tl.constexpr(16)  # rows of a sub-chunk: the least that a matrix product takes


@triton.jit
def _rows(ptr, i_bh, o_t, o_x, T, H, X):
    """[rows, BX] of a tensor [B, T, H, X]."""
    p = ptr + ((i_bh // H * T + o_t[:, None]) * H + i_bh % H) * X + o_x[None, :]
    return tl.load(p, mask=(o_t < T)[:, None] & (o_x < X)[None, :], other=0.0).to(tl.float32)


@triton.jit
def _row(ptr, i_bh, t, o_x, T, H, X):
    """[BX], row t of a tensor [B, T, H, X]."""
    p = ptr + ((i_bh // H * T + t) * H + i_bh % H) * X + o_x
    return tl.load(p, mask=(o_x < X) & (o_x * 0 + t < T), other=0.0).to(tl.float32)


@triton.jit
def _store_rows(ptr, b_x, i_bh, o_t, o_x, T, H, X):
    p = ptr + ((i_bh // H * T + o_t[:, None]) * H + i_bh % H) * X + o_x[None, :]
    tl.store(p, b_x, mask=(o_t < T)[:, None] & (o_x < X)[None, :])


@triton.jit
def _state(ptr, row, o_k, o_v, K, V):
    """The addresses of [BK, BV] of state number ``row``, and which of them exist."""
    return ptr + (row * K + o_k[:, None]) * V + o_v[None, :], (o_k < K)[:, None] & (o_v < V)[None, :]


@triton.jit
def _decay(x):
    return tl.exp(tl.minimum(x, 0.0))


@triton.jit(do_not_specialize=["T"])
def _sums_kernel(x_ptr, sum_ptr, T, H, K, REVERSE: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr):
    """Inclusive sums along a chunk; from its end back if REVERSE."""
    i_k, i_n, i_bh = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    o_k = i_k * BK + tl.arange(0, BK)
    o_t = i_n * BT + tl.arange(0, BT)
    if REVERSE:
        o_t = i_n * BT + BT - 1 - tl.arange(0, BT)
    b_x = _rows(x_ptr, i_bh, o_t, o_k, T, H, K)
    _store_rows(sum_ptr, tl.cumsum(b_x, axis=0), i_bh, o_t, o_k, T, H, K)


@triton.jit(do_not_specialize=["T", "N"])
def _states_kernel(
    x_ptr, y_ptr, sum_ptr, first_ptr, states_ptr, T, N, H, K, V,
    REVERSE: tl.constexpr, PRECISION: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """S_{n+1} = diag(e^{G_end}) S_n + (k e^{G_end − G})ᵀ v, or dS_n = diag(e^{G_end}) dS_{n+1} + (q e^G)ᵀ do."""
    i_v, i_k, i_bh = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    o_k, o_v = i_k * BK + tl.arange(0, BK), i_v * BV + tl.arange(0, BV)
    p_first, m_s = _state(first_ptr, i_bh, o_k, o_v, K, V)
    b_s = tl.load(p_first, mask=m_s, other=0.0).to(tl.float32)
    for i in range(N):
        n = N - 1 - i if REVERSE else i
        p_s, _ = _state(states_ptr, i_bh * (N + 1) + (n + 1 if REVERSE else n), o_k, o_v, K, V)
        tl.store(p_s, b_s, mask=m_s)
        o_t = n * BT + tl.arange(0, BT)
        b_x, b_y = _rows(x_ptr, i_bh, o_t, o_k, T, H, K), _rows(y_ptr, i_bh, o_t, o_v, T, H, V)
        b_g = _rows(sum_ptr, i_bh, o_t, o_k, T, H, K)
        b_end = _row(sum_ptr, i_bh, tl.minimum(n * BT + BT, T) - 1, o_k, T, H, K)
        b_x *= _decay(b_g) if REVERSE else _decay(b_end[None, :] - b_g)
        b_s = b_s * _decay(b_end)[:, None] + tl.dot(tl.trans(b_x), b_y, input_precision=PRECISION)
    p_s, _ = _state(states_ptr, i_bh * (N + 1) + (0 if REVERSE else N), o_k, o_v, K, V)
    tl.store(p_s, b_s, mask=m_s)


@triton.jit(do_not_specialize=["T"])
def _scores_kernel(
    q_ptr, k_ptr, sum_ptr, a_ptr, T, H, K,
    PRECISION: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A [B·H, T, BT] for the rows of one sub-chunk; the entries above the diagonal blocks stay unwritten."""
    i_i, i_n, i_bh = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    first = i_n * BT + i_i * BC
    o_c = tl.arange(0, BC)
    o_i = first + o_c
    p_a = a_ptr + (i_bh * T + o_i[:, None]) * BT + o_c[None, :]
    m_i = (o_i < T)[:, None] & (o_c < BC)[None, :]
    for j in range(i_i):
        b_a = tl.zeros([BC, BC], dtype=tl.float32)
        o_j = i_n * BT + j * BC + o_c
        for i_k in range(tl.cdiv(K, BK)):
            o_k = i_k * BK + tl.arange(0, BK)
            b_ref = _row(sum_ptr, i_bh, first, o_k, T, H, K)[None, :]
            b_q = _rows(q_ptr, i_bh, o_i, o_k, T, H, K) * _decay(_rows(sum_ptr, i_bh, o_i, o_k, T, H, K) - b_ref)
            b_k = _rows(k_ptr, i_bh, o_j, o_k, T, H, K) * _decay(b_ref - _rows(sum_ptr, i_bh, o_j, o_k, T, H, K))
            b_a += tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION)
        tl.store(p_a + j * BC, b_a, mask=m_i)
    b_a = tl.zeros([BC, BC], dtype=tl.float32)
    for i_k in range(tl.cdiv(K, BK)):
        o_k = i_k * BK + tl.arange(0, BK)
        b_q, b_g = _rows(q_ptr, i_bh, o_i, o_k, T, H, K), _rows(sum_ptr, i_bh, o_i, o_k, T, H, K)
        for j in range(BC):
            b_kj, b_gj = _row(k_ptr, i_bh, first + j, o_k, T, H, K), _row(sum_ptr, i_bh, first + j, o_k, T, H, K)
            b_column = tl.sum(b_q * b_kj[None, :] * _decay(b_g - b_gj[None, :]), axis=1)
            b_a += tl.where((o_c[None, :] == j) & (o_c[:, None] >= j), b_column[:, None], 0.0)
    tl.store(p_a + i_i * BC, b_a, mask=m_i)


@triton.jit(do_not_specialize=["T", "N"])
def _outputs_kernel(
    x_ptr, y_ptr, sum_ptr, a_ptr, states_ptr, o_ptr, T, N, H, K, V,
    REVERSE: tl.constexpr, PRECISION: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """O = (q e^G) S_n + A v, or dV = (k e^{G_end − G}) dS_{n+1} + Aᵀ do."""
    i_v, i_n, i_bh = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    o_v, o_c = i_v * BV + tl.arange(0, BV), tl.arange(0, BT)
    o_t = i_n * BT + o_c
    p_a = a_ptr + (i_bh * T + o_t[:, None]) * BT + o_c[None, :]
    b_a = tl.load(p_a, mask=(o_t < T)[:, None] & (o_c[:, None] >= o_c[None, :]), other=0.0)
    b_y = _rows(y_ptr, i_bh, o_t, o_v, T, H, V)
    b_o = tl.dot(tl.trans(b_a) if REVERSE else b_a, b_y, input_precision=PRECISION)
    for i_k in range(tl.cdiv(K, BK)):
        o_k = i_k * BK + tl.arange(0, BK)
        b_x, b_g = _rows(x_ptr, i_bh, o_t, o_k, T, H, K), _rows(sum_ptr, i_bh, o_t, o_k, T, H, K)
        if REVERSE:
            b_end = _row(sum_ptr, i_bh, tl.minimum(i_n * BT + BT, T) - 1, o_k, T, H, K)
            b_x *= _decay(b_end[None, :] - b_g)
        else:
            b_x *= _decay(b_g)
        p_s, m_s = _state(states_ptr, i_bh * (N + 1) + (i_n + 1 if REVERSE else i_n), o_k, o_v, K, V)
        b_o += tl.dot(b_x, tl.load(p_s, mask=m_s, other=0.0), input_precision=PRECISION)
    _store_rows(o_ptr, b_o, i_bh, o_t, o_v, T, H, V)


@triton.jit(do_not_specialize=["T"])
def _dscores_kernel(
    do_ptr, v_ptr, da_ptr, T, H, V, PRECISION: tl.constexpr, BT: tl.constexpr, BV: tl.constexpr
):  # fmt: skip
    """dA [B·H, T, BT] = dO Vᵀ, 0 above the diagonal."""
    i_n, i_bh = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    o_c = tl.arange(0, BT)
    o_t = i_n * BT + o_c
    b_da = tl.zeros([BT, BT], dtype=tl.float32)
    for i_v in range(tl.cdiv(V, BV)):
        o_v = i_v * BV + tl.arange(0, BV)
        b_do, b_v = _rows(do_ptr, i_bh, o_t, o_v, T, H, V), _rows(v_ptr, i_bh, o_t, o_v, T, H, V)
        b_da += tl.dot(b_do, tl.trans(b_v), input_precision=PRECISION)
    b_da = tl.where(o_c[:, None] >= o_c[None, :], b_da, 0.0)
    p_da = da_ptr + (i_bh * T + o_t[:, None]) * BT + o_c[None, :]
    tl.store(p_da, b_da, mask=(o_t < T)[:, None] & (o_c < BT)[None, :])


@triton.jit(do_not_specialize=["T", "N"])
def _gradients_kernel(
    q_ptr, k_ptr, v_ptr, do_ptr, sum_ptr, da_ptr, states_ptr, dstates_ptr, dq_ptr, dk_ptr, dg_ptr, T, N, H, K, V,
    PRECISION: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """dq, dk and dG for the rows of one sub-chunk."""
    i_k, i_ni, i_bh = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    i_n, i_i = i_ni // (BT // BC), i_ni % (BT // BC)
    start = i_n * BT
    end = tl.minimum(start + BT, T)
    first = start + i_i * BC
    o_c, o_k = tl.arange(0, BC), i_k * BK + tl.arange(0, BK)
    o_i = first + o_c
    b_q, b_k = _rows(q_ptr, i_bh, o_i, o_k, T, H, K), _rows(k_ptr, i_bh, o_i, o_k, T, H, K)
    b_g = _rows(sum_ptr, i_bh, o_i, o_k, T, H, K)
    b_end = _row(sum_ptr, i_bh, end - 1, o_k, T, H, K)

    b_dq = tl.zeros([BC, BK], dtype=tl.float32)
    b_dk = tl.zeros([BC, BK], dtype=tl.float32)
    b_dend = tl.zeros([BK], dtype=tl.float32)
    for i_v in range(tl.cdiv(V, BV)):
        o_v = i_v * BV + tl.arange(0, BV)
        p_s, m_s = _state(states_ptr, i_bh * (N + 1) + i_n, o_k, o_v, K, V)
        p_d, _ = _state(dstates_ptr, i_bh * (N + 1) + i_n + 1, o_k, o_v, K, V)
        b_s, b_d = tl.load(p_s, mask=m_s, other=0.0), tl.load(p_d, mask=m_s, other=0.0)
        b_next = tl.load(p_s + K * V, mask=m_s, other=0.0)
        b_dend += tl.sum(b_next * b_d, axis=1)
        b_do, b_v = _rows(do_ptr, i_bh, o_i, o_v, T, H, V), _rows(v_ptr, i_bh, o_i, o_v, T, H, V)
        b_dq += tl.dot(b_do, tl.trans(b_s), input_precision=PRECISION)
        b_dk += tl.dot(b_v, tl.trans(b_d), input_precision=PRECISION)
    b_dq *= _decay(b_g)
    b_dk *= _decay(b_end[None, :] - b_g)

    b_ref = _row(sum_ptr, i_bh, first, o_k, T, H, K)[None, :]
    b_near = tl.zeros([BC, BK], dtype=tl.float32)
    for j in range(i_i):
        o_j = start + j * BC + o_c
        p_da = da_ptr + (i_bh * T + o_i[:, None]) * BT + j * BC + o_c[None, :]
        b_da = tl.load(p_da, mask=(o_i < T)[:, None] & (o_c < BC)[None, :], other=0.0)
        b_kj = _rows(k_ptr, i_bh, o_j, o_k, T, H, K) * _decay(b_ref - _rows(sum_ptr, i_bh, o_j, o_k, T, H, K))
        b_near += tl.dot(b_da, b_kj, input_precision=PRECISION)
    b_dq += b_near * _decay(b_g - b_ref)

    b_ref = _row(sum_ptr, i_bh, tl.minimum(first + BC, end) - 1, o_k, T, H, K)[None, :]
    b_near = tl.zeros([BC, BK], dtype=tl.float32)
    for m in range(i_i + 1, BT // BC):
        o_m = start + m * BC + o_c
        p_da = da_ptr + (i_bh * T + o_m[:, None]) * BT + i_i * BC + o_c[None, :]
        b_da = tl.load(p_da, mask=(o_m < T)[:, None] & (o_c < BC)[None, :], other=0.0)
        b_qm = _rows(q_ptr, i_bh, o_m, o_k, T, H, K) * _decay(_rows(sum_ptr, i_bh, o_m, o_k, T, H, K) - b_ref)
        b_near += tl.dot(tl.trans(b_da), b_qm, input_precision=PRECISION)
    b_dk += b_near * _decay(b_ref - b_g)

    p_da = da_ptr + (i_bh * T + first) * BT + i_i * BC
    for j in range(BC):
        m_j = (o_c >= j) & (o_i < T)
        b_column = tl.load(p_da + o_c * BT + j, mask=m_j, other=0.0)[:, None]
        b_kj, b_gj = _row(k_ptr, i_bh, first + j, o_k, T, H, K), _row(sum_ptr, i_bh, first + j, o_k, T, H, K)
        b_dq += b_column * b_kj[None, :] * _decay(b_g - b_gj[None, :])
        m_j = (o_c <= j) & (o_c * 0 + first + j < T)
        b_row = tl.load(p_da + j * BT + o_c, mask=m_j, other=0.0)[:, None]
        b_qj = _row(q_ptr, i_bh, first + j, o_k, T, H, K)
        b_dk += b_row * b_qj[None, :] * _decay(b_gj[None, :] - b_g)

    _store_rows(dq_ptr, b_dq, i_bh, o_i, o_k, T, H, K)
    _store_rows(dk_ptr, b_dk, i_bh, o_i, o_k, T, H, K)
    b_dg = b_q * b_dq - b_k * b_dk + tl.where((o_i == end - 1)[:, None], b_dend[None, :], 0.0)
    _store_rows(dg_ptr, b_dg, i_bh, o_i, o_k, T, H, K)


_WIDEST = 32  # channels of a block: 64 of them spill registers


def _block(size: int, largest: int = _WIDEST) -> int:
    return min(largest, max(16, triton.next_power_of_2(size)))


def _warps(steps: int) -> int:
    """Of the kernel of outputs, whose products of 64 steps fill the registers of four warps and spill."""
    return 8 if steps > 32 else 4


def _longest(dtype: torch.dtype) -> int:
    """Steps of a chunk that fit a program's registers; three products of tf32 take more of them than one."""
    return 64 if dot_precision(dtype) == "tf32" else 32


class _ChunkGla(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, h0: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
        batch, steps, heads, keys = k.shape
        values, programs = v.shape[-1], batch * heads
        blocks = {"BK": _block(keys), "BT": chunk}
        products = blocks | {"PRECISION": dot_precision(v.dtype)}
        chunks, k_blocks, v_blocks = triton.cdiv(steps, chunk), triton.cdiv(keys, blocks["BK"]), _block(values)
        i_v = triton.cdiv(values, v_blocks)
        sums = torch.empty_like(g)
        states = g.new_empty(batch, heads, chunks + 1, keys, values)
        scores = g.new_empty(programs, steps, chunk)
        o = torch.empty_like(v)
        _sums_kernel[(k_blocks, chunks, programs)](g, sums, steps, heads, keys, REVERSE=False, **blocks)
        _states_kernel[(i_v, k_blocks, programs)](
            k, v, sums, h0, states, steps, chunks, heads, keys, values, REVERSE=False, BV=v_blocks, **products
        )
        _scores_kernel[(chunk // _BC.value, chunks, programs)](
            q, k, sums, scores, steps, heads, keys, BC=_BC.value, **products
        )
        _outputs_kernel[(i_v, chunks, programs)](
            q, v, sums, scores, states, o, steps, chunks, heads, keys, values, REVERSE=False, BV=v_blocks, **products,
            num_warps=_warps(chunk),
        )  # fmt: skip
        ctx.save_for_backward(q, k, v, sums, states, scores)
        return o, states[:, :, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, sums, states, scores = ctx.saved_tensors
        do, dlast = do.contiguous(), dlast.contiguous()
        batch, steps, heads, keys = k.shape
        values, programs, chunk = v.shape[-1], batch * heads, scores.shape[-1]
        blocks = {"BK": _block(keys), "BT": chunk}
        products = blocks | {"PRECISION": dot_precision(v.dtype), "BV": _block(values)}
        chunks, k_blocks = triton.cdiv(steps, chunk), triton.cdiv(keys, blocks["BK"])
        i_v = triton.cdiv(values, products["BV"])
        dstates, dscores, dsums, dg = (torch.empty_like(x) for x in (states, scores, sums, sums))
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        _states_kernel[(i_v, k_blocks, programs)](
            q, do, sums, dlast, dstates, steps, chunks, heads, keys, values, REVERSE=True, **products
        )
        _outputs_kernel[(i_v, chunks, programs)](
            k, do, sums, scores, dstates, dv, steps, chunks, heads, keys, values, REVERSE=True, **products,
            num_warps=_warps(chunk),
        )  # fmt: skip
        pairs = {name: products[name] for name in ("PRECISION", "BT", "BV")}
        _dscores_kernel[(chunks, programs)](do, v, dscores, steps, heads, values, **pairs)
        _gradients_kernel[(k_blocks, chunks * (chunk // _BC.value), programs)](
            q, k, v, do, sums, dscores, states, dstates, dq, dk, dsums, steps, chunks, heads, keys, values,
            BC=_BC.value, **products,
        )  # fmt: skip
        _sums_kernel[(k_blocks, chunks, programs)](dsums, dg, steps, heads, keys, REVERSE=True, **blocks)
        return dq, dk, dv, dg, dstates[:, :, 0], None


def chunk_gla(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, h0: Tensor | None = None, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """S_t = diag(exp(g_t)) S_{t−1} + k_t v_tᵀ, o_t = q_t S_t, in float32; see :func:`kernels.chunk_gla`."""
    if torch.float64 in (q.dtype, k.dtype, v.dtype, log_decay.dtype):
        return cpu.chunk_gla(q, k, v, log_decay, h0, chunk)
    batch, steps, heads, keys = k.shape
    kind = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
    size = min(_block(chunk, _longest(kind)), _block(steps, 64))
    g = log_decay.float().clamp(min=_FLOOR).contiguous()
    first = g.new_zeros(batch, heads, keys, v.shape[-1]) if h0 is None else h0.float().contiguous()
    o, last = _ChunkGla.apply(*(x.to(kind).contiguous() for x in (q, k, v)), g, first, size)
    return o.to(v.dtype), last


def _specs() -> list[AotSpec]:
    f32 = dict.fromkeys(("sum_ptr", "a_ptr", "da_ptr", "states_ptr", "dstates_ptr", "first_ptr", "dg_ptr"), "*fp32")
    sizes = dict.fromkeys(("T", "N", "H", "K", "V"), "i32")
    specs = [
        AotSpec(
            f"chunk_gla.sums{'_back' * reverse}",
            _sums_kernel,
            {"x_ptr": "*fp32", "sum_ptr": "*fp32"} | dict.fromkeys("THK", "i32"),
            {"REVERSE": reverse, "BT": 64, "BK": _WIDEST},
        )
        for reverse in (False, True)
    ]
    for kind, precision, backend in (
        ("*bf16", "tf32", ""), ("*fp32", "tf32x3", "cuda"), ("*fp32", "ieee", "hip"),
    ):  # fmt: skip
        inputs = ("x_ptr", "y_ptr", "q_ptr", "k_ptr", "v_ptr", "do_ptr", "o_ptr", "dq_ptr", "dk_ptr")
        types = dict.fromkeys(inputs, kind) | f32 | sizes
        steps = 64 if kind == "*bf16" else 32
        constants = {"PRECISION": precision, "BT": steps, "BC": _BC.value, "BK": _WIDEST, "BV": _WIDEST}
        for label, kernel, reverse in (
            ("states", _states_kernel, False), ("states_back", _states_kernel, True), ("scores", _scores_kernel, None),
            ("outputs", _outputs_kernel, False), ("outputs_back", _outputs_kernel, True),
            ("dscores", _dscores_kernel, None), ("gradients", _gradients_kernel, None),
        ):  # fmt: skip
            known = constants | ({} if reverse is None else {"REVERSE": reverse})
            names = kernel.arg_names
            specs.append(
                AotSpec(
                    f"chunk_gla.{label} {kind[1:]} {precision}",
                    kernel,
                    {name: types[name] for name in names if name in types},
                    {name: known[name] for name in names if name in known},
                    _warps(steps) if kernel is _outputs_kernel else 4,
                    backend=backend,
                )
            )
    return specs


AOT_SPECS = _specs()
