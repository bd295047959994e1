"""Gated slot attention (GSA)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import chunk_gla, linear_scan
from workloads.mixers.base import ObservedMixer, split_width, wide
from workloads.mixers.options.linear_attention import GSA as Options
from workloads.mixers.parts import HeadNorm, ShortConv, linear

State = tuple[Tensor, Tensor, Tensor]

CHUNK = 64
SMALL = 2
"""Spans up to here are multiplied element by element: a batched product of so few rows is slower."""


class GSA(ObservedMixer):
    """Gated slot attention; see the options for the formula."""

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model, self.num_heads, self.num_slots = d_model, options.num_heads, options.num_slots
        self.scale, self.temperature = options.scale, options.temperature
        split_width(d_model, options.num_heads, "num_heads")
        self.into = linear(d_model, 3 * d_model)
        self.conv = ShortConv(3 * d_model, options.conv_width)
        self.forget = linear(d_model, options.num_heads * options.num_slots)
        self.norm = HeadNorm(d_model)
        self.out = linear(d_model, d_model)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], (keys of the slots, values of the slots, window))."""
        slot_keys, slot_values, window = state or (None, None, None)
        mixed, window = self.conv(self.into(x), window)
        mixed = wide(F.silu(mixed))
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)) for part in mixed.chunk(3, dim=-1))
        log_f = F.logsigmoid(wide(self.forget(x))).unflatten(-1, (self.num_heads, -1)) / self.temperature
        self.note_gate(log_f)
        write = -torch.expm1(log_f)
        logits, slot_keys = slot_logits(q, k, write, log_f, slot_keys)
        o, slot_values = chunk_gla((self.scale * logits).softmax(dim=-1), write, v, log_f, slot_values)
        y = self.norm(F.silu(o.flatten(2)).to(x.dtype))
        return self.out(y), (slot_keys, slot_values, window)


class Span(NamedTuple):
    """Neighbouring spans of steps, solved each for itself; rows are steps, or spans.

    logits: what each query reads of the span's own steps.
    ahead: decay from the span's start to each step, that step's included.
    written: what each step writes, decayed to the span's end.
    total: decay over the whole span, one row a span.
    """

    logits: Tensor
    ahead: Tensor
    written: Tensor
    total: Tensor


def slot_logits(q: Tensor, k: Tensor, s: Tensor, log_f: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
    """q_t K̃_t with K̃_t = K̃_{t−1} diag(exp(log_f_t)) + k_t s_tᵀ: a decay on the side of the values.

    A chunk is solved as a binary tree, so that every factor is a product of gates and none is divided by.

    Args:
        q, k: [B, T, H, K]. s, log_f: [B, T, H, M]; log_f ≤ 0.
        start: K̃ before the first step, [B, H, K, M]; zeros if None.

    Returns:
        (logits [B, T, H, M], the last K̃).
    """
    steps = q.shape[1]
    chunk = min(CHUNK, 1 << (steps - 1).bit_length())
    tail = -steps % chunk
    # padding forgets nothing and writes nothing, so the last state is that of the last step
    q, k, s, log_f = (
        F.pad(y, (0, 0, 0, 0, 0, tail)).unflatten(1, (-1, chunk)).transpose(2, 3) for y in (q, k, s, log_f)
    )
    gate = log_f.exp()
    span = Span((q * k).sum(dim=-1, keepdim=True) * s, gate, s, gate)
    for size in (1 << level for level in range(chunk.bit_length() - 1)):
        span = _meet(q, k, span, size)
    added = k.transpose(-1, -2) @ span.written
    after = _over_chunks(span.total.expand_as(added), added, start)
    first = torch.zeros_like(after[:, :1]) if start is None else start[:, None].to(q.dtype)
    logits = span.logits + (q @ torch.cat([first, after[:, :-1]], dim=1)) * span.ahead
    return logits.transpose(2, 3).flatten(1, 2)[:, :steps], after[:, -1]


def _meet(q: Tensor, k: Tensor, span: Span, size: int) -> Span:
    """Join each span of `size` steps with its right neighbour."""
    earlier, later = zip(*(_halves(part, size) for part in span[:3]), strict=True)
    total_earlier, total_later = _halves(span.total, 1)
    scores = _outer(_halves(q, size)[1], _halves(k, size)[0])
    read = _mix(scores, earlier[2]) * later[1]
    return Span(
        logits=_joined(earlier[0], later[0] + read),
        ahead=_joined(earlier[1], later[1] * total_earlier),
        written=_joined(earlier[2] * total_later, later[2]),
        total=(total_earlier * total_later).flatten(-3, -2),
    )


def _halves(x: Tensor, size: int) -> tuple[Tensor, ...]:
    """The left and the right ones of the spans: [..., C, Y] -> twice [..., C / 2 size, size, Y]."""
    return x.unflatten(-2, (-1, 2, size)).unbind(-3)


def _joined(earlier: Tensor, later: Tensor) -> Tensor:
    return torch.stack([earlier, later], dim=-3).flatten(-4, -2)


def _outer(x: Tensor, y: Tensor) -> Tensor:
    if x.shape[-2] <= SMALL:
        return (x[..., :, None, :] * y[..., None, :, :]).sum(dim=-1)
    return x @ y.transpose(-1, -2)


def _mix(scores: Tensor, y: Tensor) -> Tensor:
    if y.shape[-2] <= SMALL:
        return (scores[..., None] * y[..., None, :, :]).sum(dim=-2)
    return scores @ y


def _over_chunks(decay: Tensor, added: Tensor, start: Tensor | None) -> Tensor:
    """K̃ after each chunk, [B, N, H, K, M]: a linear scan over the chunks."""
    first = None if start is None else start.flatten(1).to(added.dtype)
    return linear_scan(decay.flatten(2), added.flatten(2), first).view_as(added)
