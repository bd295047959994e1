"""Liger: softmax attention turned into gated linear attention with its own weights, and low-rank fine-tuning."""

from __future__ import annotations

from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from kernels import chunk_gla
from workloads.mixers.attention import Attention, LocalAttention, Projections, attend_locally
from workloads.mixers.base import ObservedMixer, wide
from workloads.mixers.options.attention import Liger as Options
from workloads.mixers.parts import LowRankUpdate, ShortConv

Model = TypeVar("Model", bound=nn.Module)
State = tuple[Tensor, tuple[Tensor, Tensor], Tensor]


class Liger(ObservedMixer):
    """Gated linear attention and local softmax attention on one set of maps; see the options for the formula."""

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model, self.options = d_model, options
        self.rotary, self.conv = 1.0, ShortConv(d_model, 0)
        self.maps = Projections(d_model, options.num_heads, options.num_kv_heads)
        self.add_updates()

    def add_updates(self) -> None:
        """Put a low-rank update beside the maps of q, k and v."""
        rank, alpha = self.options.rank, self.options.alpha
        if rank:
            self.maps.q, self.maps.k, self.maps.v = (
                LowRankUpdate(layer, rank, alpha) for layer in (self.maps.q, self.maps.k, self.maps.v)
            )

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], (S, last keys and values, window))."""
        memory, cache, window = state or (None, None, None)
        x, window = self.conv(x, window)
        q, k, v = self.maps(x)
        local, cache = attend_locally(q, k, v, cache, self.options.window, self.rotary)
        share = self.options.local_share
        linear, memory = self._linear(q, k, v, memory)
        return self.maps.out(share * local + (1 - share) * linear.to(local.dtype)), (memory, cache, window)

    def _linear(self, q: Tensor, k: Tensor, v: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """The gated branch: keys of each group serve its query heads. Returns (o [B, T, H · K], S)."""
        groups = q.shape[2] // k.shape[2]
        k, v = (wide(y).repeat_interleave(groups, dim=2) for y in (k, v))
        log_decay = F.logsigmoid(k) / self.options.temperature
        self.note_gate(log_decay)
        o, memory = chunk_gla(wide(q).softmax(dim=-1), k.softmax(dim=-1), v, log_decay, memory)
        return o.flatten(2), memory


def from_attention(attention: Attention | LocalAttention, options: Options) -> Liger:
    """A Liger layer that takes over the maps, heads and convolution of `attention`; the rest is from `options`."""
    layer = Liger.__new__(Liger)
    ObservedMixer.__init__(layer)
    layer.d_model, layer.options, layer.rotary = attention.d_model, options, attention.rotary
    layer.conv, layer.maps = attention.conv, attention.maps
    layer.add_updates()
    return layer


def convert(model: Model, options: Options) -> Model:
    """Turn every softmax-attention mixer of `model` into Liger, in place, and freeze all but the low-rank updates.

    With rank 0 nothing is frozen. Train the result on the task again to make up for the change.

    Raises:
        ValueError: there is no softmax attention in `model`.
    """
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, Attention | LocalAttention)
    ]
    if not found:
        raise ValueError("convert needs a model with mixers `attention` or `local_attention`; this one has neither")
    if options.rank:
        model.requires_grad_(False)
    for parent, name, child in found:
        setattr(parent, name, from_attention(child, options))
    return model
