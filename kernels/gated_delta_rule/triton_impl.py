"""The gated delta rule with Triton where PyTorch has no fast operator: the triangular inverse and the walk over chunks.

The products within chunks (:func:`kernels.gated_delta_rule.chunked.cut`) are batched matrix products, which the
vendor's library does best; one kernel inverts every chunk's I + M, and one walks the states from chunk to chunk with
S in registers:

    U' = U − W S_n,   S_{n+1} = p_n S_n + (diag(r) K)ᵀ U'

Its gradient walks back: dU' += diag(r) K dS,  dS ← p_n dS + dS_n − Wᵀ dU'. Legend: o_ offsets, m_ masks, b_ a block in
registers (float32); P programs (batch times heads), N chunks of BT steps.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.aot import AotSpec
from kernels.backend import dot_precision
from kernels.gated_delta_rule import chunked, cpu

_VALUES = 16  # columns of the state in a program


@triton.jit
def _inverse_kernel(m_ptr, inverse_ptr, BT: tl.constexpr):
    """(I + M)⁻¹ by forward substitution: no sum of powers of M, which grows beyond float32 where keys repeat."""
    p_tile = tl.program_id(0).to(tl.int64) * BT * BT
    o_t = tl.arange(0, BT)
    o_tile = o_t[:, None] * BT + o_t[None, :]
    b_x = tl.where(o_t[:, None] > o_t[None, :], -tl.load(m_ptr + p_tile + o_tile), 0.0)
    for i in range(1, BT):
        b_row = tl.sum(tl.where(o_t[:, None] == i, b_x, 0.0), axis=0)
        b_row += tl.sum(b_row[:, None] * b_x, axis=0)
        b_x = tl.where((o_t[:, None] == i) & (o_t[None, :] < i), b_row[None, :], b_x)
    tl.store(inverse_ptr + p_tile + o_tile, b_x + tl.where(o_t[:, None] == o_t[None, :], 1.0, 0.0))


@triton.jit
def _tile(ptr, number, rows, o_r, o_c, C):
    """The addresses of rows × columns of matrix ``number`` [rows, C]."""
    return ptr + (number * rows + o_r[:, None]) * C + o_c[None, :]


@triton.jit(do_not_specialize=["N"])
def _walk_kernel(
    u_ptr, w_ptr, k_ptr, decay_ptr, first_ptr, fresh_ptr, states_ptr, N, K, V,
    PRECISION: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """fresh [P, N, BT, V] and states [P, N + 1, K, V]."""
    i_v, i_p = tl.program_id(0), tl.program_id(1).to(tl.int64)
    o_t, o_k, o_v = tl.arange(0, BT), tl.arange(0, BK), i_v * BV + tl.arange(0, BV)
    m_s = (o_k < K)[:, None] & (o_v < V)[None, :]
    m_k = (o_t < BT)[:, None] & (o_k < K)[None, :]
    m_v = (o_t < BT)[:, None] & (o_v < V)[None, :]
    b_s = tl.load(_tile(first_ptr, i_p, K, o_k, o_v, V), mask=m_s, other=0.0)
    for n in range(N):
        i_n = i_p * N + n
        tl.store(_tile(states_ptr, i_n + i_p, K, o_k, o_v, V), b_s, mask=m_s)
        b_w = tl.load(_tile(w_ptr, i_n, BT, o_t, o_k, K), mask=m_k, other=0.0)
        b_u = tl.load(_tile(u_ptr, i_n, BT, o_t, o_v, V), mask=m_v, other=0.0)
        b_u -= tl.dot(b_w, b_s, input_precision=PRECISION)
        tl.store(_tile(fresh_ptr, i_n, BT, o_t, o_v, V), b_u, mask=m_v)
        b_k = tl.load(_tile(k_ptr, i_n, BT, o_t, o_k, K), mask=m_k, other=0.0)
        b_s = b_s * tl.load(decay_ptr + i_n) + tl.dot(tl.trans(b_k), b_u, input_precision=PRECISION)
    tl.store(_tile(states_ptr, i_p * (N + 1) + N, K, o_k, o_v, V), b_s, mask=m_s)


@triton.jit(do_not_specialize=["N"])
def _walk_back_kernel(
    w_ptr, k_ptr, decay_ptr, dfresh_ptr, dread_ptr, du_ptr, dstates_ptr, N, K, V,
    PRECISION: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """du [P, N, BT, V] and dstates [P, N + 1, K, V], from the gradients of fresh and of the states as they are read."""
    i_v, i_p = tl.program_id(0), tl.program_id(1).to(tl.int64)
    o_t, o_k, o_v = tl.arange(0, BT), tl.arange(0, BK), i_v * BV + tl.arange(0, BV)
    m_s = (o_k < K)[:, None] & (o_v < V)[None, :]
    m_k = (o_t < BT)[:, None] & (o_k < K)[None, :]
    m_v = (o_t < BT)[:, None] & (o_v < V)[None, :]
    b_d = tl.load(_tile(dread_ptr, i_p * (N + 1) + N, K, o_k, o_v, V), mask=m_s, other=0.0)
    for i in range(N):
        i_n = i_p * N + N - 1 - i
        tl.store(_tile(dstates_ptr, i_n + i_p + 1, K, o_k, o_v, V), b_d, mask=m_s)
        b_k = tl.load(_tile(k_ptr, i_n, BT, o_t, o_k, K), mask=m_k, other=0.0)
        b_u = tl.load(_tile(dfresh_ptr, i_n, BT, o_t, o_v, V), mask=m_v, other=0.0)
        b_u += tl.dot(b_k, b_d, input_precision=PRECISION)
        tl.store(_tile(du_ptr, i_n, BT, o_t, o_v, V), b_u, mask=m_v)
        b_w = tl.load(_tile(w_ptr, i_n, BT, o_t, o_k, K), mask=m_k, other=0.0)
        b_d = b_d * tl.load(decay_ptr + i_n) - tl.dot(tl.trans(b_w), b_u, input_precision=PRECISION)
        b_d += tl.load(_tile(dread_ptr, i_n + i_p, K, o_k, o_v, V), mask=m_s, other=0.0)
    tl.store(_tile(dstates_ptr, i_p * (N + 1), K, o_k, o_v, V), b_d, mask=m_s)


class _Inverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, system_NCC: Tensor) -> Tensor:
        system_NCC = system_NCC.contiguous()
        inverse = torch.empty_like(system_NCC)
        _inverse_kernel[(system_NCC.shape[0],)](system_NCC, inverse, BT=system_NCC.shape[-1])
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dinverse: Tensor) -> Tensor:
        transposed = ctx.saved_tensors[0].transpose(1, 2)
        return -torch.bmm(torch.bmm(transposed, dinverse), transposed).tril(-1)


class _Walk(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, precision: str, u: Tensor, w: Tensor, write: Tensor, decay: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor]:
        u, w, write, decay, first = (x.contiguous() for x in (u, w, write, decay, first))
        programs, chunks, size, values = u.shape
        keys = w.shape[-1]
        ctx.constants = {
            "PRECISION": precision, "BT": size, "BK": max(16, triton.next_power_of_2(keys)), "BV": _VALUES,
        }  # fmt: skip
        fresh, states = torch.empty_like(u), u.new_empty(programs, chunks + 1, keys, values)
        _walk_kernel[(triton.cdiv(values, _VALUES), programs)](
            u, w, write, decay, first, fresh, states, chunks, keys, values,
            **ctx.constants, num_warps=_warps(ctx.constants["BK"]),
        )  # fmt: skip
        ctx.save_for_backward(w, write, decay, fresh, states)
        return fresh, states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dfresh: Tensor, dread: Tensor) -> tuple[Tensor | None, ...]:
        w, write, decay, fresh, states = ctx.saved_tensors
        programs, chunks, _, values = fresh.shape
        du, dstates = torch.empty_like(fresh), torch.empty_like(states)
        _walk_back_kernel[(triton.cdiv(values, _VALUES), programs)](
            w, write, decay, dfresh.contiguous(), dread.contiguous(), du, dstates,
            chunks, w.shape[-1], values, **ctx.constants, num_warps=_warps(ctx.constants["BK"]),
        )  # fmt: skip
        before, dafter = states[:, :-1], dstates[:, 1:]
        ddecay = (before * dafter).sum(dim=(2, 3))
        return None, du, -du @ before.transpose(2, 3), fresh @ dafter.transpose(2, 3), ddecay, dstates[:, 0]


def gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, h0: Tensor | None = None, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """The chunked form, in float32; see :func:`kernels.gated_delta_rule`."""
    batch, steps, heads, keys = k.shape
    values = v.shape[-1]
    if keys > _widest(v.dtype) or torch.float64 in (q.dtype, k.dtype, v.dtype, beta.dtype, log_decay.dtype):
        return cpu.gated_delta_rule(q, k, v, beta, log_decay, h0, chunk)
    size = min(_longest(v.dtype), max(16, triton.next_power_of_2(min(chunk, steps))))
    x = chunked.cut(q, k, v, beta, log_decay, size, torch.float32)

    def by_head(y: Tensor) -> Tensor:
        return y.view(batch * heads, -1, *y.shape[1:])

    u, w = torch.bmm(_Inverse.apply(x.system_NCC), x.right_NCX).split([values, keys], dim=-1)
    first = x.read_NCK.new_zeros(batch, heads, keys, values) if h0 is None else h0.float()
    precision = dot_precision(v.dtype)
    fresh, states = _Walk.apply(
        precision, by_head(u.contiguous()), by_head(w.contiguous()), by_head(x.write_NCK), by_head(x.decay_N),
        first.flatten(0, 1),
    )  # fmt: skip
    o = by_head(x.scores_NCC) @ fresh + by_head(x.read_NCK) @ states[:, :-1]
    o = o.view(batch, heads, -1, values)[:, :, :steps].transpose(1, 2)
    return o.to(v.dtype), states[:, -1].reshape(batch, heads, keys, values)


def _widest(dtype: torch.dtype) -> int:
    """Key channels of a state that fits a program's registers; three products of tf32 take more of them than one."""
    return 128 if dot_precision(dtype) == "tf32" else 64


def _warps(keys: int) -> int:
    """Of a program, which holds all key channels of a state: those of a wide one fill four warps and spill."""
    return 8 if keys > 64 else 4


def _longest(dtype: torch.dtype) -> int:
    """Steps of a chunk that fit them beside the state."""
    return 32 if dot_precision(dtype) == "tf32" else 16


def _specs() -> list[AotSpec]:
    specs = []
    sizes = dict.fromkeys("NKV", "i32")
    for precision, keys, steps, backend in (("tf32", 128, 32, ""), ("tf32x3", 64, 16, "cuda"), ("ieee", 64, 16, "hip")):
        constants = {"PRECISION": precision, "BT": steps, "BK": keys, "BV": _VALUES}
        for name, kernel in (("walk", _walk_kernel), ("walk_back", _walk_back_kernel)):
            types = {argument: "*fp32" for argument in kernel.arg_names if argument.endswith("_ptr")} | sizes
            specs.append(
                AotSpec(f"gated_delta_rule.{name} {precision}", kernel, types, constants, _warps(keys), backend=backend)
            )
    pointers = {"m_ptr": "*fp32", "inverse_ptr": "*fp32"}
    specs += [AotSpec(f"gated_delta_rule.inverse {n}", _inverse_kernel, pointers, {"BT": n}) for n in (16, 32)]
    return specs


AOT_SPECS = _specs()
