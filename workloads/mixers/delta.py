"""Linear attention with the delta rule: DeltaNet and Gated DeltaNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import gated_delta_rule
from workloads.mixers.base import ObservedMixer, split_width, wide
from workloads.mixers.mamba2 import DT_FLOOR, log_uniform, softplus_inverse
from workloads.mixers.options.delta import DeltaNet as DeltaNetOptions
from workloads.mixers.options.delta import GatedDeltaNet as GatedOptions
from workloads.mixers.parts import EPS, HeadNorm, ShortConv, linear

State = tuple[Tensor, Tensor]


def unit(x: Tensor) -> Tensor:
    """`x` at length 1 over its last dimension; the ε stands under the root, so that a zero vector has a gradient."""
    x = wide(x)
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + EPS)


class _Delta(ObservedMixer):
    """The frame of both: q, k, v through one convolution, β, the rule, norm and output map."""

    def __init__(self, d_model: int, options: DeltaNetOptions | GatedOptions, key_size: int, value_size: int) -> None:
        super().__init__()
        self.d_model, self.num_heads, self.key_size = d_model, options.num_heads, key_size
        self.max_beta = options.max_beta
        keys, values = options.num_heads * key_size, options.num_heads * value_size
        self.sizes = [keys, keys, values]
        self.into = linear(d_model, sum(self.sizes))
        self.conv = ShortConv(sum(self.sizes), options.conv_width, silu=True, std=max(options.conv_width, 1) ** -0.5)
        self.beta = linear(d_model, options.num_heads)
        self.norm = HeadNorm(value_size)
        self.out = linear(values, d_model)

    def log_decay(self, x: Tensor) -> Tensor:
        """log α [B, T, H]; 0, no decay, unless a subclass has one."""
        return wide(x.new_zeros(*x.shape[:2], self.num_heads))

    def gated(self, o: Tensor, x: Tensor) -> Tensor:
        """What follows the headwise norm: o [B, T, H · V]."""
        return o

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], (S, window))."""
        memory, window = state or (None, None)
        mixed, window = self.conv(self.into(x), window)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)) for part in mixed.split(self.sizes, dim=-1))
        beta = self.max_beta * wide(self.beta(x)).sigmoid()
        decay = self.log_decay(x)
        self.note_gate(decay)
        o, memory = gated_delta_rule(unit(q) * self.key_size**-0.5, unit(k), wide(v), beta, decay, memory)
        return self.out(self.gated(self.norm(o.to(x.dtype)).flatten(2), x)), (memory, window)


class DeltaNet(_Delta):
    """DeltaNet; see the options for the formula."""

    def __init__(self, d_model: int, options: DeltaNetOptions) -> None:
        size = split_width(d_model, options.num_heads, "num_heads")
        super().__init__(d_model, options, size, size)


class GatedDeltaNet(_Delta):
    """Gated DeltaNet; see the options for the formula."""

    def __init__(self, d_model: int, options: GatedOptions) -> None:
        size = options.head_dim or max(1, round(0.75 * d_model / options.num_heads))
        value_size = round(options.expand_v * size)
        super().__init__(d_model, options, size, value_size)
        self.decay = linear(d_model, options.num_heads)
        dt = log_uniform(options.num_heads, 1e-3, 0.1).clamp(min=DT_FLOOR)
        self.dt_bias = nn.Parameter(softplus_inverse(dt))
        self.log_rate = nn.Parameter(torch.log(torch.rand(options.num_heads).clamp(min=1e-6) * 16))
        self.gate = linear(d_model, options.num_heads * value_size)

    def log_decay(self, x: Tensor) -> Tensor:
        """−e^{A} softplus(W_a x + b)."""
        return -wide(self.log_rate).exp() * F.softplus(wide(self.decay(x)) + wide(self.dt_bias))

    def gated(self, o: Tensor, x: Tensor) -> Tensor:
        """The output gate."""
        return o * F.silu(self.gate(x))
