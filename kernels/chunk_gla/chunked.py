"""Gated linear attention in chunks, with PyTorch's batched matrix products.

A chunk is solved as a binary tree. Where two neighbouring spans of s steps meet, each query of the later span reads
each key of the earlier one with the decay from the key to its span's end times the decay from the next span's start
to the query. Both factors are products of gates and so at most 1: nothing is ever divided, and a gate of exactly 0
is a plain 0. One product [s, K] [K, s] a meeting gives the scores; the factors then grow to the doubled span by one
multiplication. At the root the factors are those that tie the chunk to the states before and after it.

    X = q⃗_later k⃖_earlierᵀ,   o_later += X v_earlier
    q⃗_later ← q⃗_later · gate_earlier,   k⃖_earlier ← k⃖_earlier · gate_later,   gate ← gate_earlier · gate_later

The gradient walks the same tree from the root down; the scores are computed anew, not kept.
Rows: [R, K] with R = B·H·T, so that every span of every head and chunk is one slice.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_TINY = 2  # spans up to here are multiplied element by element: a batched product of so few rows is slower


class _Chunks(NamedTuple):
    """What one call computes with: rows in the working dtype, padded to whole chunks."""

    q_RK: Tensor
    k_RK: Tensor
    v_RV: Tensor
    gate_RK: Tensor


class _Meeting(NamedTuple):
    """Two spans at one level of the tree, before their factors are grown: P pairs of s steps."""

    later_PsK: Tensor
    earlier_PsK: Tensor
    gate_earlier_P1K: Tensor
    gate_later_P1K: Tensor


def _outer(x_PsK: Tensor, y_PsK: Tensor) -> Tensor:
    """x yᵀ for each pair."""
    if x_PsK.shape[1] <= _TINY:
        return (x_PsK[:, :, None] * y_PsK[:, None]).sum(dim=-1)
    return torch.bmm(x_PsK, y_PsK.transpose(1, 2))


def _mix(scores_Pss: Tensor, y_PsV: Tensor) -> Tensor:
    """scores y for each pair."""
    if scores_Pss.shape[1] <= _TINY:
        return (scores_Pss[..., None] * y_PsV[:, None]).sum(dim=2)
    return torch.bmm(scores_Pss, y_PsV)


def _pairs(x_RK: Tensor, span: int) -> Tensor:
    return x_RK.view(-1, 2, span, x_RK.shape[-1])


def _spans(chunk: int) -> list[int]:
    return [1 << i for i in range(chunk.bit_length() - 1)]


def _climb(x: _Chunks, chunk: int, keep: list[_Meeting] | None, o_RV: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """From single steps to whole chunks: (q⃗, k⃖, gate of each chunk); adds to ``o_RV`` and fills ``keep`` on the way."""
    q, k, gate = x.q_RK * x.gate_RK, x.k_RK.clone(), x.gate_RK
    for span in _spans(chunk):
        later, earlier = _pairs(q, span)[:, 1], _pairs(k, span)[:, 0]
        gates = _pairs(gate, 1)
        gate_earlier, gate_later = gates[:, 0], gates[:, 1]
        if keep is not None:
            keep.append(_Meeting(later.clone(), earlier.clone(), gate_earlier, gate_later))
        if o_RV is not None:
            _pairs(o_RV, span)[:, 1] += _mix(_outer(later, earlier), _pairs(x.v_RV, span)[:, 0])
        later *= gate_earlier
        earlier *= gate_later
        gate = (gate_earlier * gate_later)[:, 0]
    return q, k, gate


def _carry(decay_MNK: Tensor, add_MNKV: Tensor, first_MKV: Tensor, reverse: bool = False) -> Tensor:
    """[M, N + 1, K, V]: the states around the chunks, from ``first_MKV`` on (from the end back if ``reverse``)."""
    heads, chunks, keys, values = add_MNKV.shape
    states = add_MNKV.new_empty(heads, chunks + 1, keys, values)
    states[:, chunks if reverse else 0] = first_MKV
    for n in reversed(range(chunks)) if reverse else range(chunks):
        past, now = (n + 1, n) if reverse else (n, n + 1)
        torch.addcmul(add_MNKV[:, n], decay_MNK[:, n, :, None], states[:, past], out=states[:, now])
    return states


def _forward(x: _Chunks, h0_MKV: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """(o_RV, states [M, N + 1, K, V])."""
    heads, keys, values = h0_MKV.shape
    o_RV = (x.q_RK * x.k_RK).sum(dim=-1, keepdim=True) * x.v_RV
    q, k, gate = _climb(x, chunk, None, o_RV)
    q_NCK, k_NCK, v_NCV = q.view(-1, chunk, keys), k.view(-1, chunk, keys), x.v_RV.view(-1, chunk, values)
    add = torch.bmm(k_NCK.transpose(1, 2), v_NCV).view(heads, -1, keys, values)
    states = _carry(gate.view(heads, -1, keys), add, h0_MKV)
    o_RV.view(-1, chunk, values).add_(torch.bmm(q_NCK, states[:, :-1].reshape(-1, keys, values)))
    return o_RV, states


def _backward(x: _Chunks, states_MNKV: Tensor, do_RV: Tensor, dlast_MKV: Tensor, chunk: int) -> tuple[Tensor, ...]:
    """(dq, dk, dv, dgate, dh0)."""
    heads, _, keys, values = states_MNKV.shape
    meetings: list[_Meeting] = []
    q, k, gate = _climb(x, chunk, meetings, None)
    q_NCK, k_NCK, v_NCV = q.view(-1, chunk, keys), k.view(-1, chunk, keys), x.v_RV.view(-1, chunk, values)
    do_NCV = do_RV.view(-1, chunk, values)

    add = torch.bmm(q_NCK.transpose(1, 2), do_NCV).view(heads, -1, keys, values)
    dstates = _carry(gate.view(heads, -1, keys), add, dlast_MKV, reverse=True)
    before, dafter = states_MNKV[:, :-1].reshape(-1, keys, values), dstates[:, 1:].reshape(-1, keys, values)
    dq = torch.bmm(do_NCV, before.transpose(1, 2)).view(-1, keys)
    dk = torch.bmm(v_NCV, dafter.transpose(1, 2)).view(-1, keys)
    dv = torch.bmm(k_NCK, dafter).view(-1, values)
    dgate = (before * dafter).sum(dim=-1)

    for span, meeting in reversed(list(zip(_spans(chunk), meetings, strict=True))):
        dlater, dearlier = _pairs(dq, span)[:, 1], _pairs(dk, span)[:, 0]
        dmerged = dgate[:, None]
        dgate_earlier = (dlater * meeting.later_PsK).sum(dim=1, keepdim=True) + dmerged * meeting.gate_later_P1K
        dgate_later = (dearlier * meeting.earlier_PsK).sum(dim=1, keepdim=True) + dmerged * meeting.gate_earlier_P1K
        dgate = torch.stack([dgate_earlier, dgate_later], dim=1).view(-1, keys)
        do_later, v_earlier = _pairs(do_RV, span)[:, 1], _pairs(x.v_RV, span)[:, 0]
        scores = _outer(meeting.later_PsK, meeting.earlier_PsK)
        dscores = _outer(do_later, v_earlier)
        _pairs(dv, span)[:, 0] += _mix(scores.transpose(1, 2), do_later)
        dlater.mul_(meeting.gate_earlier_P1K).add_(_mix(dscores, meeting.earlier_PsK))
        dearlier.mul_(meeting.gate_later_P1K).add_(_mix(dscores.transpose(1, 2), meeting.later_PsK))

    dself = (do_RV * x.v_RV).sum(dim=-1, keepdim=True)
    dgate.addcmul_(dq, x.q_RK)
    dq.mul_(x.gate_RK).addcmul_(dself, x.k_RK)
    dk.addcmul_(dself, x.q_RK)
    dv.addcmul_((x.q_RK * x.k_RK).sum(dim=-1, keepdim=True), do_RV)
    return dq, dk, dv, dgate, dstates[:, 0]


class _ChunkGla(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h0_MKV: Tensor, chunk: int, *rows: Tensor) -> tuple[Tensor, Tensor]:
        o_RV, states = _forward(_Chunks(*rows), h0_MKV, chunk)
        ctx.save_for_backward(states, *rows)
        ctx.chunk = chunk
        return o_RV, states[:, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do_RV: Tensor, dlast_MKV: Tensor) -> tuple[Tensor | None, ...]:
        states, *rows = ctx.saved_tensors
        *drows, dh0 = _backward(_Chunks(*rows), states, do_RV.contiguous(), dlast_MKV, ctx.chunk)
        return dh0, None, *drows


def chunk_gla(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, h0: Tensor | None = None, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """S_t = diag(exp(g_t)) S_{t−1} + k_t v_tᵀ, o_t = q_t S_t, in float32 or wider; see :func:`kernels.chunk_gla`."""
    batch, steps, heads, keys = k.shape
    values = v.shape[-1]
    inner = torch.promote_types(torch.promote_types(k.dtype, v.dtype), torch.float32)
    size = min(1 << (chunk - 1).bit_length(), 1 << (steps - 1).bit_length())

    def rows(x: Tensor) -> Tensor:
        padded = F.pad(x.to(inner).transpose(1, 2), (0, 0, 0, -steps % size))
        return padded.reshape(-1, x.shape[-1])

    # a padded step has gate exp(0) and key 0, so it leaves the state as it is
    first = q.new_zeros(batch, heads, keys, values) if h0 is None else h0
    o_RV, last = _ChunkGla.apply(first.to(inner).flatten(0, 1), size, rows(q), rows(k), rows(v), rows(log_decay).exp())
    o = o_RV.view(batch, heads, -1, values)[:, :, :steps].transpose(1, 2)
    return o.to(v.dtype), last.view(batch, heads, keys, values)
