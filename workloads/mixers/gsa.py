"""Gated slot attention (GSA)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import chunk_gla, linear_scan
from workloads.mixers.base import ZooMixer, split_width, wide
from workloads.mixers.options.linear_attention import GSA as Options
from workloads.mixers.parts import HeadNorm, ShortConv, linear

State = tuple[Tensor, Tensor, Tensor]

CHUNK = 16
"""Steps that `slot_logits` solves at once: it holds CHUNK numbers a step, head and slot."""
NO_KEEP = -88.0
"""Smallest log of a gate: e^-88 is 0 to any sum in float32, and sums of such logs keep their digits."""


class GSA(ZooMixer):
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
        log_f = log_f.clamp(min=NO_KEEP)
        self.note_gate(log_f)
        write = -torch.expm1(log_f)
        logits, slot_keys = slot_logits(q, k, write, log_f, slot_keys)
        o, slot_values = chunk_gla((self.scale * logits).softmax(dim=-1), write, v, log_f, slot_values)
        y = self.norm(F.silu(o.flatten(2)).to(x.dtype))
        return self.out(y), (slot_keys, slot_values, window)


def slot_logits(q: Tensor, k: Tensor, s: Tensor, log_f: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
    """q_t K̃_t with K̃_t = K̃_{t−1} diag(exp(log_f_t)) + k_t s_tᵀ: a decay on the value side, in chunks of 16 steps.

    Args:
        q, k: [B, T, H, K]. s, log_f: [B, T, H, M]; −88 ≤ log_f ≤ 0.
        start: K̃ before the first step, [B, H, K, M]; zeros if None.

    Returns:
        (logits [B, T, H, M], the last K̃).
    """
    steps = q.shape[1]
    chunk = min(steps, CHUNK)
    tail = -steps % chunk
    # padding forgets nothing and writes nothing, so the last state is that of the last step
    q, k, s, log_f = (
        F.pad(y, (0, 0, 0, 0, 0, tail)).unflatten(1, (-1, chunk)).transpose(2, 3) for y in (q, k, s, log_f)
    )
    reach = log_f.cumsum(dim=-2)
    state_after = _chunk_states(k, s, reach, start)
    first = torch.zeros_like(state_after[:, :1]) if start is None else start[:, None].to(q.dtype)
    before = torch.cat([first, state_after[:, :-1]], dim=1)
    causal = torch.ones(chunk, chunk, dtype=torch.bool, device=q.device).tril()
    between = (reach[..., :, None, :] - reach[..., None, :, :]).masked_fill(~causal[..., None], -torch.inf).exp()
    inside = torch.einsum("bnhij,bnhijm,bnhjm->bnhim", q @ k.transpose(-1, -2), between, s)
    logits = inside + (q @ before) * reach.exp()
    return logits.transpose(2, 3).flatten(1, 2)[:, :steps], state_after[:, -1]


def _chunk_states(k: Tensor, s: Tensor, reach: Tensor, start: Tensor | None) -> Tensor:
    """K̃ after each chunk, [B, N, H, K, M]: a linear scan over the chunks."""
    whole = reach[..., -1:, :]
    added = k.transpose(-1, -2) @ (s * (whole - reach).exp())
    decay = whole.exp().expand_as(added)
    first = None if start is None else start.flatten(1).to(k.dtype)
    return linear_scan(decay.flatten(2), added.flatten(2), first).view_as(added)
