"""Small layers that mixers are made of: short convolution, block-diagonal map, low-rank update, norm, rotation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.mixers.base import split_width, wide

EPS = 1e-6


class ShortConv(nn.Module):
    """Depthwise causal convolution over the last `width` steps. State: the last width − 1 inputs, [B, width − 1, D].

    width 0 leaves the steps apart, and only SiLU where that is on. Weights start as N(0, 0.01 / width) with `std` left
    out, else N(0, std²).
    """

    def __init__(self, channels: int, width: int, *, silu: bool = False, std: float | None = None) -> None:
        super().__init__()
        self.width, self.silu = width, silu
        if width:
            self.weight = nn.Parameter(torch.empty(width, channels))
            self.bias = nn.Parameter(torch.zeros(channels))
            nn.init.normal_(self.weight, std=math.sqrt(0.01 / width) if std is None else std)

    def forward(self, x: Tensor, window: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [B, T, D], window from an earlier call -> (y [B, T, D], window)."""
        if not self.width:
            return F.silu(x) if self.silu else x, x[:, :0]
        batch, steps, channels = x.shape
        if window is None:
            window = x.new_zeros(batch, self.width - 1, channels)
        past = torch.cat([window.to(x.dtype), x], dim=1)
        # shifted products, not conv1d: no transposes, and each output depends on its own window bit by bit
        y = self.bias + sum(self.weight[i] * past[:, i : i + steps] for i in range(self.width))
        y = y.to(x.dtype)
        return F.silu(y) if self.silu else y, past[:, steps:]


class BlockLinear(nn.Module):
    """A linear map whose matrix is block-diagonal: `blocks` equal blocks. [..., I] -> [..., O]."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, bias: bool = True) -> None:
        super().__init__()
        self.blocks = blocks
        fan_in, fan_out = split_width(inputs, blocks, "blocks"), split_width(outputs, blocks, "blocks")
        self.weight = nn.Parameter(torch.empty(blocks, fan_in, fan_out))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        nn.init.normal_(self.weight, std=fan_in**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] -> [..., O]."""
        y = torch.einsum("...hi,hio->...ho", x.unflatten(-1, (self.blocks, -1)), self.weight).flatten(-2)
        return y if self.bias is None else y + self.bias


class LowRankUpdate(nn.Linear):
    """A linear map plus B A · alpha / rank (LoRA, arXiv:2106.09685); B starts at 0, so at first nothing changes."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None)
        self.weight, self.bias = base.weight, base.bias
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, base.in_features).to(base.weight))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank).to(base.weight))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] -> [..., O]."""
        return super().forward(x) + self.scale * F.linear(F.linear(x, self.down), self.up)


def low_rank_updates(model: nn.Module) -> dict[str, Tensor]:
    """The weights of every low-rank update in `model`, by their names in its state."""
    return {
        f"{path}.{name}": getattr(module, name)
        for path, module in model.named_modules()
        if isinstance(module, LowRankUpdate)
        for name in ("down", "up")
    }


class HeadNorm(nn.Module):
    """Root-mean-square norm of each head alone, with a weight a channel of the head. [..., H, V] -> same."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., V] -> normalised over V."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), EPS)


def linear(inputs: int, outputs: int, *, bias: bool = False, std: float = 0.02) -> nn.Linear:
    """A linear map with weights N(0, std²) and zero bias: the initialisation of the language models in this zoo."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=std)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def rotate(x: Tensor, positions: Tensor, *, fraction: float = 1.0, base: float = 10000.0) -> Tensor:
    """Rotary position embedding, half-split form, on the first `fraction` of the head's channels.

    Args:
        x: [B, T, H, K].
        positions: [T] or [B, T], in steps.

    Source: RoFormer, arXiv:2104.09864, eq. 34, with the pairs (i, i + K/2).
    """
    size = int(x.shape[-1] * fraction) // 2 * 2
    if not size:
        return x
    half = size // 2
    frequency = base ** (-torch.arange(half, device=x.device, dtype=torch.float64) / half)
    angle = (positions.to(torch.float64)[..., None] * frequency)[..., None, :]
    # the table is made in float64 and rounded once: in bfloat16 the angles of late positions would be noise
    cos, sin = angle.cos().to(wide(x).dtype), angle.sin().to(wide(x).dtype)
    first, second, rest = wide(x[..., :half]), wide(x[..., half:size]), x[..., size:]
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
    return torch.cat([turned, rest], dim=-1)
