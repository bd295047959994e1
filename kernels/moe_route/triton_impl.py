"""Top-k routing in Triton. One program owns a block of tokens with all of their experts.

Selection takes the largest score k times over; a token's chosen experts are remembered as a slot number in the tile
[BN, BE], from which weights, indices and the histogram follow without a second look at the logits.

Backward, with s = sum_j w_j dw_j over a token's choices:

    renormalised:  dz_e = w_j (dw_j - s) for a chosen e, else 0
    plain:         dz_e = w_j dw_j [e chosen] - p_e s

Legend: o_ offsets, m_ mask, b_ a block in registers (float32). [BN] is BLOCK_N tokens, [BE] BLOCK_E experts.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.aot import AotSpec

# Elements of a program's tile [BN, BE]: a few registers a thread.
_TILE = 1024


@triton.jit
def _load_logits(logits_ptr, noise_ptr, o_n, o_e, N, E, s_n, s_e, HAS_NOISE: tl.constexpr):
    m_ne = (o_n < N)[:, None] & (o_e < E)[None, :]
    b_z = tl.load(logits_ptr + o_n[:, None] * s_n + o_e[None, :] * s_e, mask=m_ne, other=0.0).to(tl.float32)
    if HAS_NOISE:
        b_z += tl.load(noise_ptr + o_n[:, None] * E + o_e[None, :], mask=m_ne, other=0.0).to(tl.float32)
    return b_z


@triton.jit
def _softmax(b_z, m_ne):
    """Softmax of each row over the cells of the mask; zeros elsewhere."""
    b_top = tl.max(tl.where(m_ne, b_z, float("-inf")), axis=1)
    b_exp = tl.where(m_ne, tl.exp(b_z - b_top[:, None]), 0.0)
    return b_exp / tl.sum(b_exp, axis=1)[:, None]


@triton.jit(do_not_specialize=["N"])
def _route_fwd_kernel(
    logits_ptr,
    noise_ptr,
    bias_ptr,
    index_ptr,
    weight_ptr,
    counts_ptr,
    N,
    E,
    K,
    s_n,
    s_e,
    s_bias_n,
    HAS_NOISE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    RENORMALIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    o_n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)  # [BN]
    o_e = tl.arange(0, BLOCK_E)  # [BE]
    m_e = o_e < E
    m_ne = (o_n < N)[:, None] & m_e[None, :]
    b_z = _load_logits(logits_ptr, noise_ptr, o_n, o_e, N, E, s_n, s_e, HAS_NOISE)
    b_score = b_z
    if HAS_BIAS:
        b_bias = tl.load(bias_ptr + o_n[:, None] * s_bias_n + o_e[None, :], mask=m_ne, other=0.0)
        b_score = _softmax(b_z, m_e[None, :]) + b_bias.to(tl.float32)
    # -inf marks what may not be chosen (again), so every real score stays above it
    lowest = -3.4028234663852886e38
    b_score = tl.where(b_score == b_score, tl.maximum(b_score, lowest), lowest)
    b_score = tl.where(m_e[None, :], b_score, float("-inf"))
    b_slot = tl.full([BLOCK_N, BLOCK_E], -1, tl.int32)
    for j in range(K):
        b_best = tl.argmax(b_score, axis=1)
        m_hit = o_e[None, :] == b_best[:, None]
        b_slot = tl.where(m_hit, j, b_slot)
        b_score = tl.where(m_hit, float("-inf"), b_score)
    m_chosen = (b_slot >= 0) & m_ne
    b_weight = _softmax(b_z, (b_slot >= 0) if RENORMALIZE else m_e[None, :])
    o_out = o_n[:, None] * K + b_slot
    tl.store(weight_ptr + o_out, b_weight, mask=m_chosen)
    tl.store(index_ptr + o_out, (o_e[None, :] + tl.zeros_like(b_slot)).to(tl.int64), mask=m_chosen)
    b_load = tl.sum(m_chosen.to(tl.int32), axis=0)  # [BE]
    tl.atomic_add(counts_ptr + o_e, b_load, mask=m_e & (b_load > 0), sem="relaxed")


@triton.jit(do_not_specialize=["N"])
def _route_bwd_kernel(
    logits_ptr,
    noise_ptr,
    index_ptr,
    weight_ptr,
    dweight_ptr,
    dz_ptr,
    N,
    E,
    K,
    s_n,
    s_e,
    HAS_NOISE: tl.constexpr,
    RENORMALIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    o_n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)  # [BN]
    o_e = tl.arange(0, BLOCK_E)  # [BE]
    m_n = o_n < N
    m_ne = m_n[:, None] & (o_e < E)[None, :]
    b_weight = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)
    b_dweight = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)
    for j in range(K):
        b_index = tl.load(index_ptr + o_n * K + j, mask=m_n, other=-1)
        m_hit = o_e[None, :] == b_index[:, None]
        b_weight += tl.where(m_hit, tl.load(weight_ptr + o_n * K + j, mask=m_n, other=0.0)[:, None], 0.0)
        b_dweight += tl.where(m_hit, tl.load(dweight_ptr + o_n * K + j, mask=m_n, other=0.0)[:, None], 0.0)
    b_sum = tl.sum(b_weight * b_dweight, axis=1)  # [BN]
    if RENORMALIZE:
        b_share = b_weight
    else:
        b_z = _load_logits(logits_ptr, noise_ptr, o_n, o_e, N, E, s_n, s_e, HAS_NOISE)
        b_share = _softmax(b_z, (o_e < E)[None, :])
    b_dz = b_weight * b_dweight - b_share * b_sum[:, None]
    tl.store(dz_ptr + o_n[:, None] * E + o_e[None, :], b_dz, mask=m_ne)


def moe_route(
    logits: Tensor, k: int, bias: Tensor | None, noise: Tensor | None, renormalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`kernels.moe_route.moe_route`.

    Raises:
        ValueError: for float64 logits.
    """
    if logits.dtype == torch.float64:
        raise ValueError("moe_route: the Triton form computes in float32; give float32 logits or backend='cpu'")
    return _MoeRoute.apply(logits, noise, bias, k, renormalize)


def _blocks(num_experts: int) -> dict[str, int]:
    block_e = triton.next_power_of_2(num_experts)
    return {"BLOCK_N": max(1, _TILE // block_e), "BLOCK_E": block_e}


class _MoeRoute(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, noise: Tensor | None, bias: Tensor | None, k: int, renormalize: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        num_tokens, num_experts = logits.shape
        noise = None if noise is None else noise.contiguous()
        bias = None if bias is None else bias.contiguous()
        index = torch.empty(num_tokens, k, dtype=torch.int64, device=logits.device)
        weight = torch.empty(num_tokens, k, dtype=torch.float32, device=logits.device)
        counts = torch.zeros(num_experts, dtype=torch.int32, device=logits.device)
        blocks = _blocks(num_experts)
        if num_tokens:
            _route_fwd_kernel[(triton.cdiv(num_tokens, blocks["BLOCK_N"]),)](
                logits,
                noise,
                bias,
                index,
                weight,
                counts,
                num_tokens,
                num_experts,
                k,
                logits.stride(0),
                logits.stride(1),
                num_experts if bias is not None and bias.ndim == 2 else 0,
                HAS_NOISE=noise is not None,
                HAS_BIAS=bias is not None,
                RENORMALIZE=renormalize,
                **blocks,
            )
        counts = counts.long()
        ctx.mark_non_differentiable(index, counts)
        ctx.save_for_backward(logits, noise, index, weight)
        ctx.renormalize = renormalize
        return index, weight, counts

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, _index: Tensor, dweight: Tensor, _counts: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        logits, noise, index, weight = ctx.saved_tensors
        num_tokens, num_experts = logits.shape
        dz = torch.empty(num_tokens, num_experts, dtype=torch.float32, device=logits.device)
        blocks = _blocks(num_experts)
        if num_tokens:
            _route_bwd_kernel[(triton.cdiv(num_tokens, blocks["BLOCK_N"]),)](
                logits,
                noise,
                index,
                weight,
                dweight.contiguous(),
                dz,
                num_tokens,
                num_experts,
                index.shape[1],
                logits.stride(0),
                logits.stride(1),
                HAS_NOISE=noise is not None,
                RENORMALIZE=ctx.renormalize,
                **blocks,
            )
        dlogits = dz.to(logits.dtype) if ctx.needs_input_grad[0] else None
        dnoise = dz.to(noise.dtype) if ctx.needs_input_grad[1] else None
        return dlogits, dnoise, None, None, None


_SIZES = {"N": "i32", "E": "i32", "K": "i32", "s_n": "i32"}

AOT_SPECS = [
    AotSpec(
        name=f"moe_route.forward {dtype} E={experts}",
        kernel=_route_fwd_kernel,
        types={
            "logits_ptr": f"*{dtype}",
            "noise_ptr": "*fp32",
            "bias_ptr": "*fp32",
            "index_ptr": "*i64",
            "weight_ptr": "*fp32",
            "counts_ptr": "*i32",
            **_SIZES,
            "s_bias_n": "i32",
        },
        constexprs={"s_e": 1, "HAS_NOISE": True, "HAS_BIAS": True, "RENORMALIZE": True, **_blocks(experts)},
    )
    for dtype, experts in (("fp32", 8), ("bf16", 64), ("bf16", 512))
] + [
    AotSpec(
        name=f"moe_route.backward {dtype} E={experts}",
        kernel=_route_bwd_kernel,
        types={
            "logits_ptr": f"*{dtype}",
            "noise_ptr": "*fp32",
            "index_ptr": "*i64",
            "weight_ptr": "*fp32",
            "dweight_ptr": "*fp32",
            "dz_ptr": "*fp32",
            **_SIZES,
        },
        constexprs={"s_e": 1, "HAS_NOISE": True, "RENORMALIZE": False, **_blocks(experts)},
    )
    for dtype, experts in (("fp32", 8), ("bf16", 64), ("bf16", 512))
]
