"""Grouped matrix product in Triton: blocks of rows that never straddle two experts, found on the device.

The grid has room for every block that M rows in E groups can need; each program finds its expert from the counts, and
the few beyond the last leave at once. So no count comes to the host and no row is padded: edges are masked. The
weight gradient gives each program one tile of one expert's matrix and walks that expert's rows.

Legend: p_ pointers, o_ offsets, m_ mask, b_ a block in registers. [BM] is BLOCK_M rows, [BK] BLOCK_K of the summed
dimension, [BN] BLOCK_N columns. A block's base is an int64 offset, as rows * columns pass 2**31; inside the block and
inside one expert's matrix offsets are int32, which halves the registers that they take.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.aot import AotSpec
from kernels.backend import triton_is_interpreted


@triton.jit
def find_rows(counts_ptr, block, E, BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr):
    """(expert, first row, rows to the expert's end) of a block of rows; an expert >= E past the last block."""
    o_e = tl.arange(0, BLOCK_E)
    b_count = tl.load(counts_ptr + o_e, mask=o_e < E, other=0).to(tl.int64)
    b_blocks = (b_count + BLOCK_M - 1) // BLOCK_M
    expert = tl.sum((tl.cumsum(b_blocks, axis=0) <= block).to(tl.int32), axis=0)
    m_before = o_e < expert
    first_of_expert = tl.sum(tl.where(m_before, b_count, 0), axis=0)
    blocks_before = tl.sum(tl.where(m_before, b_blocks, 0), axis=0)
    skipped = (block - blocks_before) * BLOCK_M
    rows = tl.sum(tl.where(o_e == expert, b_count, 0), axis=0) - skipped
    return expert.to(tl.int64), first_of_expert + skipped, rows.to(tl.int32)


@triton.jit
def add_product(
    b_acc,
    x_ptr,
    w_ptr,
    o_m,
    o_n,
    rows,
    K,
    N,
    s_xm,
    s_xk,
    s_wk,
    s_wn,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """b_acc [BM, BN] + x[:rows, :] @ w[:, o_n], with x_ptr at the block's first row, w_ptr at the expert's matrix."""
    o_k = tl.arange(0, BLOCK_K)  # [BK]
    m_m, m_n = (o_m < rows)[:, None], (o_n < N)[None, :]
    p_x = x_ptr + o_m[:, None] * s_xm + o_k[None, :] * s_xk
    p_w = w_ptr + o_k[:, None] * s_wk + o_n[None, :] * s_wn
    for k in range(0, K, BLOCK_K):
        b_x = tl.load(p_x, mask=m_m & (o_k < K - k)[None, :], other=0.0)
        b_w = tl.load(p_w, mask=(o_k < K - k)[:, None] & m_n, other=0.0)
        if UPCAST:
            b_x, b_w = b_x.to(tl.float32), b_w.to(tl.float32)
        b_acc = tl.dot(b_x, b_w, b_acc, input_precision=PRECISION)
        p_x += BLOCK_K * s_xk
        p_w += BLOCK_K * s_wk
    return b_acc


@triton.jit
def _rows_by_weights_kernel(
    x_ptr,
    w_ptr,
    x2_ptr,
    w2_ptr,
    y_ptr,
    counts_ptr,
    E,
    K,
    N,
    s_xm,
    s_xk,
    s_we,
    s_wk,
    s_wn,
    s_x2m,
    s_x2k,
    s_w2e,
    s_w2k,
    s_w2n,
    TWO: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    expert, first, rows = find_rows(counts_ptr, tl.program_id(1), E, BLOCK_M, BLOCK_E)
    if expert >= E:
        return
    o_m = tl.arange(0, BLOCK_M)  # [BM]
    o_n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)  # [BN]
    b_y = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    p_x = x_ptr + first * s_xm
    p_w = w_ptr + expert * s_we
    b_y = add_product(b_y, p_x, p_w, o_m, o_n, rows, K, N, s_xm, s_xk, s_wk, s_wn, PRECISION, UPCAST, BLOCK_K)
    if TWO:
        p_x = x2_ptr + first * s_x2m
        p_w = w2_ptr + expert * s_w2e
        b_y = add_product(b_y, p_x, p_w, o_m, o_n, rows, K, N, s_x2m, s_x2k, s_w2k, s_w2n, PRECISION, UPCAST, BLOCK_K)
    p_y = y_ptr + first * N + o_m[:, None] * N + o_n[None, :]
    tl.store(p_y, b_y, mask=(o_m < rows)[:, None] & (o_n < N)[None, :])


@triton.jit
def _rows_by_rows_kernel(
    x_ptr,
    dy_ptr,
    dw_ptr,
    counts_ptr,
    E,
    I,
    N,
    s_xm,
    s_xi,
    s_dym,
    s_dyn,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    expert = tl.program_id(2)
    o_e = tl.arange(0, BLOCK_E)
    b_count = tl.load(counts_ptr + o_e, mask=o_e < E, other=0).to(tl.int64)
    first = tl.sum(tl.where(o_e < expert, b_count, 0), axis=0)
    rows = tl.sum(tl.where(o_e == expert, b_count, 0), axis=0).to(tl.int32)
    o_i = tl.program_id(1) * BLOCK_I + tl.arange(0, BLOCK_I)  # [BI]
    o_n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)  # [BN]
    o_m = tl.arange(0, BLOCK_K)  # [BK] rows of this expert
    m_i, m_n = (o_i < I)[:, None], (o_n < N)[None, :]
    p_x = x_ptr + first * s_xm + o_m[None, :] * s_xm + o_i[:, None] * s_xi
    p_dy = dy_ptr + first * s_dym + o_m[:, None] * s_dym + o_n[None, :] * s_dyn
    b_dw = tl.zeros([BLOCK_I, BLOCK_N], tl.float32)
    for m in range(0, rows, BLOCK_K):
        b_x = tl.load(p_x, mask=(o_m < rows - m)[None, :] & m_i, other=0.0)
        b_dy = tl.load(p_dy, mask=(o_m < rows - m)[:, None] & m_n, other=0.0)
        if UPCAST:
            b_x, b_dy = b_x.to(tl.float32), b_dy.to(tl.float32)
        b_dw = tl.dot(b_x, b_dy, b_dw, input_precision=PRECISION)
        p_x += BLOCK_K * s_xm
        p_dy += BLOCK_K * s_dym
    p_dw = dw_ptr + expert.to(tl.int64) * I * N + o_i[:, None] * N + o_n[None, :]
    tl.store(p_dw, b_dw, mask=m_i & m_n)


def grouped_mm(x: Tensor, w: Tensor, counts: Tensor) -> Tensor:
    """See :func:`kernels.grouped_mm.grouped_mm`.

    Raises:
        ValueError: for float64.
    """
    if x.dtype == torch.float64:
        raise ValueError("grouped_mm: the Triton form multiplies float32 at most; use backend='cpu' for float64")
    return _GroupedMM.apply(x, w, counts)


def dot_options(dtype: torch.dtype) -> dict[str, Any]:
    """How ``tl.dot`` multiplies: float32 as torch.matmul would on this machine, halves as they are."""
    tf32 = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    # Triton's interpreter multiplies bfloat16 as if its bits were integers.
    return {"PRECISION": "tf32" if tf32 else "ieee", "UPCAST": triton_is_interpreted() and dtype != torch.float32}


def row_grid(dtype: torch.dtype, num_rows: int, num_experts: int) -> tuple[int, int]:
    """(rows a block, blocks enough for any division of the rows among the experts)."""
    # Few rows an expert fill a small block better; 16 is the least that tl.dot takes.
    block = min(_most_rows(dtype), max(16, triton.next_power_of_2(num_rows // max(num_experts, 1))))
    return block, num_rows // block + min(num_experts, num_rows)


def _most_rows(dtype: torch.dtype) -> int:
    # Without tensor cores, as in float32, operands live in registers: larger tiles spill.
    return 64 if dtype == torch.float32 else 128


def tile_sizes(dtype: torch.dtype, block_m: int, num_experts: int) -> dict[str, int]:
    """The other sizes of a program's tile, with the launch's warps and stages."""
    block_n, block_k = (64, 32) if dtype == torch.float32 else (128, 64)
    return {
        "BLOCK_N": block_n,
        "BLOCK_K": block_k,
        "BLOCK_E": triton.next_power_of_2(num_experts),
        "num_warps": 8 if block_m == 128 else 4,
        "num_stages": 2 if dtype == torch.float32 else 3,
    }


def rows_by_weights(x: Tensor, w: Tensor, counts: Tensor, x2: Tensor | None = None, w2: Tensor | None = None) -> Tensor:
    """y[rows of e] = x[rows of e] @ w[e] (+ x2[rows of e] @ w2[e]); x [M, K], w [E, K, N] -> y [M, N]."""
    num_rows, inner = x.shape
    num_experts, _, width = w.shape
    y = torch.empty(num_rows, width, dtype=x.dtype, device=x.device)
    if y.numel():
        block_m, row_blocks = row_grid(x.dtype, num_rows, num_experts)
        tile = tile_sizes(x.dtype, block_m, num_experts)
        second = (*x2.stride(), *w2.stride()) if x2 is not None and w2 is not None else (0,) * 5
        _rows_by_weights_kernel[(triton.cdiv(width, tile["BLOCK_N"]), row_blocks)](
            x,
            w,
            x2,
            w2,
            y,
            counts,
            num_experts,
            inner,
            width,
            *x.stride(),
            *w.stride(),
            *second,
            TWO=x2 is not None,
            BLOCK_M=block_m,
            **dot_options(x.dtype),
            **tile,
        )
    return y


def rows_by_rows(x: Tensor, dy: Tensor, counts: Tensor) -> Tensor:
    """dw[e] = x[rows of e]^T @ dy[rows of e], zero for no rows; x [M, I], dy [M, N] -> dw [E, I, N]."""
    height, width, num_experts = x.shape[1], dy.shape[1], len(counts)
    dw = torch.empty(num_experts, height, width, dtype=x.dtype, device=x.device)
    if dw.numel():
        tile = tile_sizes(x.dtype, _most_rows(x.dtype), num_experts)
        block_i = tile["BLOCK_N"]
        grid = (triton.cdiv(width, tile["BLOCK_N"]), triton.cdiv(height, block_i), num_experts)
        _rows_by_rows_kernel[grid](
            x,
            dy,
            dw,
            counts,
            num_experts,
            height,
            width,
            *x.stride(),
            *dy.stride(),
            BLOCK_I=block_i,
            **dot_options(x.dtype),
            **tile,
        )
    return dw


class _GroupedMM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, counts: Tensor) -> Tensor:
        ctx.save_for_backward(x, w, counts)
        return rows_by_weights(x, w, counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, w, counts = ctx.saved_tensors
        dx = rows_by_weights(dy, w.transpose(1, 2), counts) if ctx.needs_input_grad[0] else None
        dw = rows_by_rows(x, dy, counts) if ctx.needs_input_grad[1] else None
        return dx, dw, None


_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

AOT_TILES = [("fp32", 16), ("fp32", 64), ("bf16", 16), ("bf16", 128)]
"""(dtype, rows a block) of the smallest and largest launches, for the ahead-of-time report."""


def aot_tile(
    dtype: str, block_m: int, sizes: Callable[[torch.dtype, int, int], dict[str, int]] = tile_sizes
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(constexprs, warps and stages) of a launch with 64 experts, for the ahead-of-time report."""
    tile = sizes(_DTYPES[dtype], block_m, 64)
    launch: dict[str, Any] = {name: tile.pop(name) for name in ("num_warps", "num_stages")}
    return {"PRECISION": "ieee", "UPCAST": False, "BLOCK_M": block_m, **tile}, launch


def _rows_by_weights_spec(dtype: str, block_m: int, *, transposed: bool) -> AotSpec:
    # The backward pass reads the weights transposed, and in the gated MLP sums two products.
    along, across = ("k", "n") if transposed else ("n", "k")
    constexprs, launch = aot_tile(dtype, block_m)
    sizes = ("K", "N", "s_xm", "s_x2m", "s_we", "s_w2e", f"s_w{across}", f"s_w2{across}")
    return AotSpec(
        name=f"grouped_mm.{'backward_x' if transposed else 'forward'} {dtype} BM={block_m}",
        kernel=_rows_by_weights_kernel,
        types={
            **dict.fromkeys(("x_ptr", "w_ptr", "x2_ptr", "w2_ptr", "y_ptr"), f"*{dtype}"),
            "counts_ptr": "*i64",
            "E": "i32",
            **dict.fromkeys(sizes, "i32:16"),
        },
        constexprs={
            **dict.fromkeys(("s_xk", "s_x2k", f"s_w{along}", f"s_w2{along}"), 1),
            "TWO": transposed,
            **constexprs,
        },
        **launch,
    )


def _rows_by_rows_spec(dtype: str) -> AotSpec:
    constexprs, launch = aot_tile(dtype, _most_rows(_DTYPES[dtype]))
    constexprs["BLOCK_I"] = constexprs["BLOCK_N"]
    del constexprs["BLOCK_M"]
    return AotSpec(
        name=f"grouped_mm.backward_w {dtype}",
        kernel=_rows_by_rows_kernel,
        types={
            **dict.fromkeys(("x_ptr", "dy_ptr", "dw_ptr"), f"*{dtype}"),
            "counts_ptr": "*i64",
            "E": "i32",
            **dict.fromkeys(("I", "N", "s_xm", "s_dym"), "i32:16"),
        },
        constexprs={"s_xi": 1, "s_dyn": 1, **constexprs},
        **launch,
    )


AOT_SPECS = [
    *(_rows_by_weights_spec(*tile, transposed=transposed) for tile in AOT_TILES for transposed in (False, True)),
    *(_rows_by_rows_spec(dtype) for dtype in _DTYPES),
]
