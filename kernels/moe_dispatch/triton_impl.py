"""Dispatch and combine in Triton: a stable counting pass, a row gather, and a segmented weighted sum.

The counting pass knows, for each block of assignments, how many go to each expert; one running sum over blocks turns
this into the place where each block's rows of an expert begin, and a running count inside the block does the rest.
Every row is written once by one program, so equal inputs give equal bits, which atomic counters would not.

Legend: o_ offsets, m_ mask, b_ a block in registers (float32 where it holds numbers). [BM] is BLOCK_M assignments or
rows, [BE] BLOCK_E experts, [BD] BLOCK_D features. Offsets are int64: rows * features pass 2**31.
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.aot import AotSpec
from kernels.moe_dispatch.plan import DispatchPlan

# Elements of the one-hot tile [BM, BE] of the counting pass.
_TILE = 4096


@triton.jit
def _one_hot(expert_ptr, o_m, o_e, M):
    b_expert = tl.load(expert_ptr + o_m, mask=o_m < M, other=-1)
    return (b_expert[:, None] == o_e[None, :]).to(tl.int32)  # [BM, BE]


@triton.jit(do_not_specialize=["M"])
def _count_kernel(expert_ptr, histogram_ptr, M, E, BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr):
    i_block = tl.program_id(0).to(tl.int64)
    o_e = tl.arange(0, BLOCK_E)
    b_one_hot = _one_hot(expert_ptr, i_block * BLOCK_M + tl.arange(0, BLOCK_M), o_e, M)
    tl.store(histogram_ptr + i_block * E + o_e, tl.sum(b_one_hot, axis=0), mask=o_e < E)


@triton.jit(do_not_specialize=["M"])
def _place_kernel(
    token_ptr,
    expert_ptr,
    begin_ptr,
    assignment_ptr,
    row_token_ptr,
    row_ptr,
    M,
    E,
    BLOCK_M: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    i_block = tl.program_id(0).to(tl.int64)
    o_m = i_block * BLOCK_M + tl.arange(0, BLOCK_M)  # [BM]
    o_e = tl.arange(0, BLOCK_E)
    m_m = o_m < M
    b_one_hot = _one_hot(expert_ptr, o_m, o_e, M)
    b_begin = tl.load(begin_ptr + i_block * E + o_e, mask=o_e < E, other=0)  # [BE]
    b_rank = tl.cumsum(b_one_hot, axis=0) - b_one_hot
    b_row = tl.sum(b_one_hot * (b_rank + b_begin[None, :]), axis=1)  # [BM]
    tl.store(assignment_ptr + b_row, o_m, mask=m_m)
    tl.store(row_token_ptr + b_row, tl.load(token_ptr + o_m, mask=m_m, other=0), mask=m_m)
    tl.store(row_ptr + o_m, b_row, mask=m_m)


@triton.jit(do_not_specialize=["M"])
def _gather_kernel(x_ptr, token_ptr, rows_ptr, M, D, s_n, s_d, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr):
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BM]
    o_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)  # [BD]
    m_md = (o_m < M)[:, None] & (o_d < D)[None, :]
    b_token = tl.load(token_ptr + o_m, mask=o_m < M, other=0)
    b_x = tl.load(x_ptr + b_token[:, None] * s_n + o_d[None, :] * s_d, mask=m_md, other=0.0)
    tl.store(rows_ptr + o_m[:, None] * D + o_d[None, :], b_x, mask=m_md)


@triton.jit
def _combine_fwd_kernel(
    rows_ptr,
    bag_row_ptr,
    bag_assignment_ptr,
    bag_start_ptr,
    weight_ptr,
    y_ptr,
    D,
    s_m,
    s_d,
    HAS_WEIGHT: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    i_n = tl.program_id(0).to(tl.int64)
    o_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)  # [BD]
    m_d = o_d < D
    b_y = tl.zeros([BLOCK_D], tl.float32)
    for i in range(tl.load(bag_start_ptr + i_n), tl.load(bag_start_ptr + i_n + 1)):
        row = tl.load(bag_row_ptr + i)
        b_row = tl.load(rows_ptr + row * s_m + o_d * s_d, mask=m_d, other=0.0).to(tl.float32)
        if HAS_WEIGHT:
            b_row *= tl.load(weight_ptr + tl.load(bag_assignment_ptr + i)).to(tl.float32)
        b_y += b_row
    tl.store(y_ptr + i_n * D + o_d, b_y, mask=m_d)


@triton.jit(do_not_specialize=["M"])
def _combine_bwd_kernel(
    dy_ptr,
    rows_ptr,
    token_ptr,
    assignment_ptr,
    weight_ptr,
    drows_ptr,
    dweight_ptr,
    M,
    D,
    s_dy_n,
    s_dy_d,
    s_m,
    s_d,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BM]
    m_m = o_m < M
    b_token = tl.load(token_ptr + o_m, mask=m_m, other=0)
    b_assignment = tl.load(assignment_ptr + o_m, mask=m_m, other=0)
    b_dweight = tl.zeros([BLOCK_M], tl.float32)
    b_weight = tl.load(weight_ptr + b_assignment, mask=m_m, other=0.0).to(tl.float32)
    for d in range(0, D, BLOCK_D):
        o_d = d + tl.arange(0, BLOCK_D)  # [BD]
        m_md = m_m[:, None] & (o_d < D)[None, :]
        p_dy = dy_ptr + b_token[:, None] * s_dy_n + o_d[None, :] * s_dy_d
        b_dy = tl.load(p_dy, mask=m_md, other=0.0).to(tl.float32)
        tl.store(drows_ptr + o_m[:, None] * D + o_d[None, :], b_weight[:, None] * b_dy, mask=m_md)
        p_row = rows_ptr + o_m[:, None] * s_m + o_d[None, :] * s_d
        b_dweight += tl.sum(tl.load(p_row, mask=m_md, other=0.0).to(tl.float32) * b_dy, axis=1)
    tl.store(dweight_ptr + b_assignment, b_dweight, mask=m_m)


def plan(token: Tensor, expert: Tensor, num_tokens: int, num_experts: int, per_token: int | None) -> DispatchPlan:
    """Group the assignments (token[m], expert[m]) by expert; nothing waits for the host.

    ``per_token`` says that token n owns exactly the assignments [n * per_token, (n + 1) * per_token). Without it the
    way back needs the rows token by token, and as there may be more tokens than a tile has columns, torch sorts them.
    """
    token, expert = token.contiguous(), expert.contiguous()
    num = len(expert)
    every = torch.arange(num, device=expert.device)
    assignment, row_token, row = torch.empty_like(every), torch.empty_like(every), torch.empty_like(every)
    blocks = _counting_blocks(num_experts)
    grid = (triton.cdiv(num, blocks["BLOCK_M"]),)
    histogram = torch.empty(*grid, num_experts, dtype=torch.int64, device=expert.device)
    if num:
        _count_kernel[grid](expert, histogram, num, num_experts, **blocks)
    counts = histogram.sum(0)
    begin = (counts.cumsum(0) - counts) + (histogram.cumsum(0) - histogram)
    if num:
        _place_kernel[grid](token, expert, begin, assignment, row_token, row, num, num_experts, **blocks)
    if per_token is not None:
        bag_start = torch.arange(num_tokens + 1, device=expert.device) * per_token
        return DispatchPlan(num_tokens, counts, assignment, row_token, row, every, bag_start)
    bag_row = row_token.argsort(stable=True)
    ones = torch.ones((), dtype=torch.int64, device=expert.device).expand(num)
    per_bag = torch.zeros(num_tokens, dtype=torch.int64, device=expert.device).scatter_add_(0, token, ones)
    bag_start = F.pad(per_bag.cumsum(0), (1, 0))
    return DispatchPlan(num_tokens, counts, assignment, row_token, bag_row, assignment[bag_row], bag_start)


def dispatch(x: Tensor, plan: DispatchPlan) -> Tensor:
    """rows[r] = x[token[r]]."""
    _refuse_float64(x)
    return _Dispatch.apply(x, plan)


def combine(rows: Tensor, plan: DispatchPlan, weight: Tensor | None) -> Tensor:
    """y[n] = sum of weight * row over the rows of token n, summed in float32."""
    _refuse_float64(rows)
    return _Combine.apply(rows, weight, plan)


def _refuse_float64(rows: Tensor) -> None:
    if rows.dtype == torch.float64:
        raise ValueError("the Triton forms of dispatch and combine sum in float32; use backend='cpu' for float64")


def _counting_blocks(num_experts: int) -> dict[str, int]:
    block_e = triton.next_power_of_2(num_experts)
    return {"BLOCK_M": max(16, min(256, _TILE // block_e)), "BLOCK_E": block_e}


def _row_blocks(width: int) -> dict[str, int]:
    block_d = min(256, triton.next_power_of_2(width))
    return {"BLOCK_M": max(1, 2048 // block_d), "BLOCK_D": block_d}


def _gather(x: Tensor, plan: DispatchPlan) -> Tensor:
    num, width = len(plan.token), x.shape[1]
    rows = torch.empty(num, width, dtype=x.dtype, device=x.device)
    if rows.numel():
        blocks = _row_blocks(width)
        grid = (triton.cdiv(num, blocks["BLOCK_M"]), triton.cdiv(width, blocks["BLOCK_D"]))
        _gather_kernel[grid](x, plan.token, rows, num, width, *x.stride(), **blocks)
    return rows


def _sum_bags(rows: Tensor, plan: DispatchPlan, weight: Tensor | None) -> Tensor:
    width = rows.shape[1]
    y = torch.empty(plan.num_tokens, width, dtype=rows.dtype, device=rows.device)
    if y.numel():
        block_d = min(1024, triton.next_power_of_2(width))
        _combine_fwd_kernel[(plan.num_tokens, triton.cdiv(width, block_d))](
            rows,
            plan.bag_row,
            plan.bag_assignment,
            plan.bag_start,
            weight,
            y,
            width,
            *rows.stride(),
            HAS_WEIGHT=weight is not None,
            BLOCK_D=block_d,
        )
    return y


class _Dispatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: DispatchPlan) -> Tensor:
        ctx.plan = plan
        return _gather(x, plan)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, drows: Tensor) -> tuple[Tensor, None]:
        return _sum_bags(drows, ctx.plan, None), None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor | None, plan: DispatchPlan) -> Tensor:
        weight = None if weight is None else weight.contiguous()
        ctx.save_for_backward(rows, weight)
        ctx.plan = plan
        return _sum_bags(rows, plan, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        plan, (num, width) = ctx.plan, rows.shape
        if weight is None:
            return _gather(dy, plan), None, None
        drows = torch.empty(num, width, dtype=rows.dtype, device=rows.device)
        dweight = torch.empty_like(weight)
        if num:
            blocks = _row_blocks(width)
            _combine_bwd_kernel[(triton.cdiv(num, blocks["BLOCK_M"]),)](
                dy,
                rows,
                plan.token,
                plan.assignment,
                weight,
                drows,
                dweight,
                num,
                width,
                *dy.stride(),
                *rows.stride(),
                **blocks,
            )
        return drows, dweight, None


_COUNTING_TYPES = {"expert_ptr": "*i64", "M": "i32", "E": "i32"}

AOT_SPECS = [
    spec
    for experts in (8, 64, 512)
    for spec in (
        AotSpec(
            name=f"moe_dispatch.count E={experts}",
            kernel=_count_kernel,
            types={**_COUNTING_TYPES, "histogram_ptr": "*i64"},
            constexprs=_counting_blocks(experts),
        ),
        AotSpec(
            name=f"moe_dispatch.place E={experts}",
            kernel=_place_kernel,
            types={
                **_COUNTING_TYPES,
                "token_ptr": "*i64",
                "begin_ptr": "*i64",
                "assignment_ptr": "*i64",
                "row_token_ptr": "*i64",
                "row_ptr": "*i64",
            },
            constexprs=_counting_blocks(experts),
        ),
    )
] + [
    spec
    for dtype in ("fp32", "bf16")
    for spec in (
        AotSpec(
            name=f"moe_dispatch.gather {dtype}",
            kernel=_gather_kernel,
            types={
                "x_ptr": f"*{dtype}",
                "token_ptr": "*i64",
                "rows_ptr": f"*{dtype}",
                "M": "i32",
                "D": "i32",
                "s_n": "i32",
            },
            constexprs={"s_d": 1, **_row_blocks(1024)},
        ),
        AotSpec(
            name=f"moe_combine.forward {dtype}",
            kernel=_combine_fwd_kernel,
            types={
                "rows_ptr": f"*{dtype}",
                "bag_row_ptr": "*i64",
                "bag_assignment_ptr": "*i64",
                "bag_start_ptr": "*i64",
                "weight_ptr": "*fp32",
                "y_ptr": f"*{dtype}",
                "D": "i32",
                "s_m": "i32",
            },
            constexprs={"s_d": 1, "HAS_WEIGHT": True, "BLOCK_D": 1024},
        ),
        AotSpec(
            name=f"moe_combine.backward {dtype}",
            kernel=_combine_bwd_kernel,
            types={
                "dy_ptr": f"*{dtype}",
                "rows_ptr": f"*{dtype}",
                "token_ptr": "*i64",
                "assignment_ptr": "*i64",
                "weight_ptr": "*fp32",
                "drows_ptr": f"*{dtype}",
                "dweight_ptr": "*fp32",
                "M": "i32",
                "D": "i32",
                "s_dy_n": "i32",
                "s_m": "i32",
            },
            constexprs={"s_dy_d": 1, "s_d": 1, **_row_blocks(1024)},
        ),
    )
]
