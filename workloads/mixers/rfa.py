"""Random feature attention (RFA) with a gate a token or a sentence."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import chunk_gla
from workloads.mixers.base import ObservedMixer, split_width, wide
from workloads.mixers.delta import unit
from workloads.mixers.options.linear_attention import RFA as Options
from workloads.mixers.parts import linear

State = dict[str, Tensor]

LEAST_NORMALISER = 0.1
NO_SENTENCE = -1e4
"""Logit of the gate before the first sentence has ended: 0 in every precision, and its logarithm is finite."""


class RFA(ObservedMixer):
    """Random feature attention; see the options for the formula."""

    directions: Tensor

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model, self.num_heads, self.options = d_model, options.num_heads, options
        size = split_width(d_model, options.num_heads, "num_heads")
        self.q, self.k, self.v, self.out = (linear(d_model, d_model) for _ in range(4))
        for layer in (self.q, self.k, self.v, self.out):
            torch.nn.init.xavier_uniform_(layer.weight)
        self.forget = None if options.gate == "none" else linear(d_model, options.num_heads, bias=True)
        pool = torch.randn(options.pool, options.num_heads, options.num_features, size)
        self.register_buffer("directions", pool)
        self.drawn = 0

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], state by name)."""
        if state is None:
            # drawn once a sequence: a state is only read with the features that wrote it
            self.drawn = int(torch.randint(self.options.pool, ())) if self.training and self.options.pool > 1 else 0
        q, k, v = (layer(x).unflatten(-1, (self.num_heads, -1)) for layer in (self.q, self.k, self.v))
        log_decay, write, after = self._gates(x, state)
        self.note_gate(log_decay)
        # a value of 1 beside the values sums the keys: the normaliser
        values = F.pad(wide(v), (0, 1), value=1.0)
        k = self._features(k) * write[..., None]
        decay = log_decay[..., None].expand_as(k)
        o, memory = chunk_gla(self._features(q), k, values, decay, state["memory"] if state else None)
        o = o[..., :-1] / o[..., -1:].clamp(min=LEAST_NORMALISER)
        return self.out(o.flatten(2).to(x.dtype)), after | {"memory": memory}

    def _features(self, x: Tensor) -> Tensor:
        """φ: [B, T, H, K] -> [B, T, H, features]."""
        angle = torch.einsum("bthk,hpk->bthp", unit(x), wide(self.directions[self.drawn]))
        scale = 1 / math.sqrt(self.options.num_features)
        if self.options.features == "positive":
            return scale * torch.exp(angle - 0.5)
        return scale * torch.cat([angle.sin(), angle.cos()], dim=-1)

    def _gates(self, x: Tensor, state: State | None) -> tuple[Tensor, Tensor, State]:
        """(log of the decay before each step [B, T, H], weight of what it writes [B, T, H], the gates' state)."""
        if self.forget is None:
            one = wide(x.new_ones(*x.shape[:2], self.num_heads))
            return torch.zeros_like(one), one, {}
        logits = wide(self.forget(x))
        if self.options.gate == "token":
            return F.logsigmoid(logits), (-logits).sigmoid(), {}
        return self._sentence_gates(logits, state)

    def _sentence_gates(self, logits: Tensor, state: State | None) -> tuple[Tensor, Tensor, State]:
        batch, steps, _ = logits.shape
        length = self.options.sentence_length
        if state is None:
            start = torch.zeros(batch, dtype=torch.int64, device=logits.device)
            latest = torch.full_like(logits[:, 0], NO_SENTENCE)
        else:
            start, latest = state["position"], state["gate"].to(logits.dtype)
        time = torch.arange(1, steps + 1, device=logits.device)
        ended = torch.where((start[:, None] + time) % length == 0, time, 0).cummax(dim=1).values
        # index 0 is the gate that was carried in, index t the gate of step t
        known = torch.cat([latest[:, None], logits], dim=1)
        ended = F.pad(ended, (1, 0))[..., None].expand(-1, -1, self.num_heads)
        gates = known.gather(1, ended)
        before, last = gates[:, :-1], gates[:, -1]
        position = start[:, None] + time - 1
        opens = ((position % length == 0) & (position > 0))[..., None]
        log_decay = torch.where(opens, F.logsigmoid(before), 0.0)
        return log_decay, (-before).sigmoid(), {"position": start + steps, "gate": last}
