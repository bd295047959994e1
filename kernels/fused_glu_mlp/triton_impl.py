"""Gated MLP over groups in Triton.

Forward: one kernel computes a tile of gate and up together and writes their gated product; a grouped product brings it
down. Backward, with g and u the pre-activations, h = act(g) u and dh = dy W_down^T, one kernel computes a tile of dh
and, before it leaves the registers,

    dg = dh u act'(g),   du = dh act(g),   h

The rest are grouped products: dW_down = h^T dy, dW_gate = x^T dg, dW_up = x^T du, dx = dg W_gate^T + du W_up^T.

Legend: o_ offsets, m_ mask, b_ a block in registers. [BM] is BLOCK_M rows, [BN] BLOCK_N hidden channels, H of them.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.aot import AotSpec
from kernels.grouped_mm.triton_impl import (
    AOT_TILES,
    add_product,
    aot_tile,
    dot_options,
    find_rows,
    row_grid,
    rows_by_rows,
    rows_by_weights,
    tile_sizes,
)


@triton.jit
def _activate(b_g, ACTIVATION: tl.constexpr):
    """(act(g), act'(g))."""
    if ACTIVATION == "silu":
        b_s = tl.sigmoid(b_g)
        return b_g * b_s, b_s * (1.0 + b_g * (1.0 - b_s))
    elif ACTIVATION == "gelu":
        b_cdf = 0.5 * (1.0 + tl.erf(b_g * 0.7071067811865476))
        return b_g * b_cdf, b_cdf + b_g * 0.3989422804014327 * tl.exp(-0.5 * b_g * b_g)
    elif ACTIVATION == "relu":
        # not tl.maximum, which would hide a NaN
        return tl.where(b_g < 0.0, 0.0, b_g), tl.where(b_g > 0.0, 1.0, 0.0)
    elif ACTIVATION == "sigmoid":
        b_s = tl.sigmoid(b_g)
        return b_s, b_s * (1.0 - b_s)
    else:
        return b_g, tl.full(b_g.shape, 1.0, tl.float32)


@triton.jit
def _glu_fwd_kernel(
    x_ptr,
    w_gate_ptr,
    w_up_ptr,
    g_ptr,
    u_ptr,
    h_ptr,
    counts_ptr,
    E,
    K,
    H,
    s_xm,
    s_xk,
    s_ge,
    s_gk,
    s_gn,
    s_ue,
    s_uk,
    s_un,
    KEEP: tl.constexpr,
    ACTIVATION: tl.constexpr,
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
    o_k = tl.arange(0, BLOCK_K)  # [BK]
    m_m, m_n = (o_m < rows)[:, None], (o_n < H)[None, :]
    p_x = x_ptr + first * s_xm + o_m[:, None] * s_xm + o_k[None, :] * s_xk
    p_gate = w_gate_ptr + expert * s_ge + o_k[:, None] * s_gk + o_n[None, :] * s_gn
    p_up = w_up_ptr + expert * s_ue + o_k[:, None] * s_uk + o_n[None, :] * s_un
    b_g = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    b_u = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for k in range(0, K, BLOCK_K):
        m_k = o_k < K - k
        b_x = tl.load(p_x, mask=m_m & m_k[None, :], other=0.0)
        b_gate = tl.load(p_gate, mask=m_k[:, None] & m_n, other=0.0)
        b_up = tl.load(p_up, mask=m_k[:, None] & m_n, other=0.0)
        if UPCAST:
            b_x, b_gate, b_up = b_x.to(tl.float32), b_gate.to(tl.float32), b_up.to(tl.float32)
        b_g = tl.dot(b_x, b_gate, b_g, input_precision=PRECISION)
        b_u = tl.dot(b_x, b_up, b_u, input_precision=PRECISION)
        p_x += BLOCK_K * s_xk
        p_gate += BLOCK_K * s_gk
        p_up += BLOCK_K * s_uk
    o_mn = first * H + (o_m[:, None] * H + o_n[None, :])
    m_mn = m_m & m_n
    b_a, _ = _activate(b_g, ACTIVATION)
    tl.store(h_ptr + o_mn, b_a * b_u, mask=m_mn)
    if KEEP:
        tl.store(g_ptr + o_mn, b_g, mask=m_mn)
        tl.store(u_ptr + o_mn, b_u, mask=m_mn)


@triton.jit
def _glu_bwd_kernel(
    dy_ptr,
    w_down_ptr,
    g_ptr,
    u_ptr,
    h_ptr,
    dg_ptr,
    du_ptr,
    counts_ptr,
    E,
    K,
    H,
    s_ym,
    s_yk,
    s_de,
    s_dn,
    s_dk,
    ACTIVATION: tl.constexpr,
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
    p_dy = dy_ptr + first * s_ym
    p_down = w_down_ptr + expert * s_de
    b_dh = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    b_dh = add_product(b_dh, p_dy, p_down, o_m, o_n, rows, K, H, s_ym, s_yk, s_dk, s_dn, PRECISION, UPCAST, BLOCK_K)
    o_mn = first * H + (o_m[:, None] * H + o_n[None, :])
    m_mn = (o_m < rows)[:, None] & (o_n < H)[None, :]
    b_u = tl.load(u_ptr + o_mn, mask=m_mn, other=0.0).to(tl.float32)
    b_a, b_da = _activate(tl.load(g_ptr + o_mn, mask=m_mn, other=0.0).to(tl.float32), ACTIVATION)
    tl.store(h_ptr + o_mn, b_a * b_u, mask=m_mn)
    tl.store(du_ptr + o_mn, b_dh * b_a, mask=m_mn)
    tl.store(dg_ptr + o_mn, b_dh * b_u * b_da, mask=m_mn)


def fused_glu_mlp(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor, counts: Tensor, activation: str) -> Tensor:
    """See :func:`kernels.fused_glu_mlp.fused_glu_mlp`.

    Raises:
        ValueError: for float64.
    """
    if x.dtype == torch.float64:
        raise ValueError("fused_glu_mlp: the Triton form multiplies float32 at most; use backend='cpu' for float64")
    if not (torch.is_grad_enabled() and any(t.requires_grad for t in (x, w_gate, w_up, w_down))):
        return rows_by_weights(_hidden(x, w_gate, w_up, counts, activation, keep=False)[0], w_down, counts)
    return _FusedGluMlp.apply(x, w_gate, w_up, w_down, counts, activation)


def _hidden_tile_sizes(dtype: torch.dtype, block_m: int, num_experts: int) -> dict[str, int]:
    # Two accumulators, or one and four tiles of operands: half the columns of a plain product.
    tile = tile_sizes(dtype, block_m, num_experts)
    return tile | {"BLOCK_N": tile["BLOCK_N"] // 2, "num_warps": 8 if block_m >= 64 else 4}


def _hidden(
    x: Tensor, w_gate: Tensor, w_up: Tensor, counts: Tensor, activation: str, keep: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(act(g) * u, g, u), all [M, H]; the last two only to keep."""
    num_rows, inner = x.shape
    num_experts, _, hidden = w_gate.shape
    h = torch.empty(num_rows, hidden, dtype=x.dtype, device=x.device)
    g, u = (torch.empty_like(h), torch.empty_like(h)) if keep else (None, None)
    if h.numel():
        block_m, row_blocks = row_grid(x.dtype, num_rows, num_experts)
        tile = _hidden_tile_sizes(x.dtype, block_m, num_experts)
        _glu_fwd_kernel[(triton.cdiv(hidden, tile["BLOCK_N"]), row_blocks)](
            x,
            w_gate,
            w_up,
            g,
            u,
            h,
            counts,
            num_experts,
            inner,
            hidden,
            *x.stride(),
            *w_gate.stride(),
            *w_up.stride(),
            KEEP=keep,
            ACTIVATION=activation,
            BLOCK_M=block_m,
            **dot_options(x.dtype),
            **tile,
        )
    return h, g, u


def _hidden_gradients(
    dy: Tensor, w_down: Tensor, g: Tensor, u: Tensor, counts: Tensor, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """(h, dg, du), all [M, H]."""
    h, dg, du = torch.empty_like(g), torch.empty_like(g), torch.empty_like(g)
    num_rows, hidden = g.shape
    num_experts, _, width = w_down.shape
    if h.numel():
        block_m, row_blocks = row_grid(g.dtype, num_rows, num_experts)
        tile = _hidden_tile_sizes(g.dtype, block_m, num_experts)
        _glu_bwd_kernel[(triton.cdiv(hidden, tile["BLOCK_N"]), row_blocks)](
            dy,
            w_down,
            g,
            u,
            h,
            dg,
            du,
            counts,
            num_experts,
            width,
            hidden,
            *dy.stride(),
            *w_down.stride(),
            ACTIVATION=activation,
            BLOCK_M=block_m,
            **dot_options(g.dtype),
            **tile,
        )
    return h, dg, du


class _FusedGluMlp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor, counts: Tensor, activation: str
    ) -> Tensor:
        h, g, u = _hidden(x, w_gate, w_up, counts, activation, keep=True)
        ctx.save_for_backward(x, w_gate, w_up, w_down, counts, g, u)
        ctx.activation = activation
        return rows_by_weights(h, w_down, counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w_gate, w_up, w_down, counts, g, u = ctx.saved_tensors
        need_x, need_gate, need_up, need_down, _, _ = ctx.needs_input_grad
        h, dg, du = _hidden_gradients(dy, w_down, g, u, counts, ctx.activation)
        dx = rows_by_weights(dg, w_gate.transpose(1, 2), counts, du, w_up.transpose(1, 2)) if need_x else None
        dw_gate = rows_by_rows(x, dg, counts) if need_gate else None
        dw_up = rows_by_rows(x, du, counts) if need_up else None
        dw_down = rows_by_rows(h, dy, counts) if need_down else None
        return dx, dw_gate, dw_up, dw_down, None, None


def _spec(name: str, kernel: Any, dtype: str, block_m: int, activation: str, matrices: str, unit: str) -> AotSpec:
    """``matrices`` and ``unit``: the kernel's pointers of ``dtype``, and its strides of one element."""
    known, launch = aot_tile(dtype, block_m, _hidden_tile_sizes)
    known |= {"ACTIVATION": activation, **dict.fromkeys(unit.split(), 1)}
    if "KEEP" in kernel.arg_names:
        known["KEEP"] = True
    types = {f"{matrix}_ptr": f"*{dtype}" for matrix in matrices.split()} | {"counts_ptr": "*i64", "E": "i32"}
    types |= {arg: "i32:16" for arg in kernel.arg_names if arg not in known and arg not in types}
    return AotSpec(f"fused_glu_mlp.{name} {dtype} BM={block_m}", kernel, types, known, **launch)


AOT_SPECS = [
    spec
    for tile in AOT_TILES
    for spec in (
        _spec("forward", _glu_fwd_kernel, *tile, "silu", "x w_gate w_up g u h", "s_xk s_gn s_un"),
        _spec("backward", _glu_bwd_kernel, *tile, "gelu", "dy w_down g u h dg du", "s_yk s_dk"),
    )
]
