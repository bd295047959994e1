"""RWKV-4 time mixing, with SpikeGPT's spiking neurons as an option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kernels import linear_scan
from workloads.mixers.base import ObservedMixer, undecayed, wide
from workloads.mixers.options.elementwise import RWKV4 as Options
from workloads.slots import Mixer

NOTHING = -1e38
"""Exponent of an empty sum; finite, because -inf - (-inf) is not a number."""


class _Spike(torch.autograd.Function):
    """1 where V ≥ 1; gradient that of arctan with α = 2: 1 / (1 + (π (V − 1))²)."""

    @staticmethod
    def forward(ctx: Any, potential: Tensor) -> Tensor:
        ctx.save_for_backward(potential)
        return (potential >= 1).to(potential.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (potential,) = ctx.saved_tensors
        return gradient / (1 + (torch.pi * (potential - 1)) ** 2)


def integrate_and_fire(current: Tensor, potential: Tensor | None) -> tuple[Tensor, Tensor]:
    """Leaky neurons along time: current [B, T, D], potential [B, D] -> (spikes [B, T, D], potential)."""
    potential = torch.zeros_like(current[:, 0]) if potential is None else potential.to(current.dtype)
    spikes = []
    for drive in current.unbind(1):
        potential = potential + (drive - potential) / 2
        spike = _Spike.apply(potential)
        # the reset is taken as constant: its gradient would run against the spike's own
        potential = potential * (1 - spike.detach())
        spikes.append(spike)
    return torch.stack(spikes, dim=1), potential


class RWKV4(ObservedMixer):
    """RWKV-4 time mixing; see the options for the formula."""

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model, self.spiking = d_model, options.spiking
        self.key, self.value, self.receptance, self.out = (nn.Linear(d_model, d_model, bias=False) for _ in range(4))
        for layer in (self.key, self.receptance, self.out):
            nn.init.zeros_(layer.weight)
        nn.init.orthogonal_(self.value.weight)
        self.decay = nn.Parameter(torch.empty(d_model))
        zigzag = (torch.arange(d_model) + 1) % 3 - 1
        self.bonus = nn.Parameter(torch.log(torch.tensor(0.3)) + 0.5 * zigzag)
        self.mix = undecayed(torch.empty(3, d_model))
        self._shape_by_depth(0.0, 1.0)

    def place(self, layer: int, stack: Sequence[Mixer]) -> None:
        """Decays and token shifts by depth, as the authors start them."""
        self._shape_by_depth(layer / max(len(stack) - 1, 1), 1 - layer / len(stack))

    def _shape_by_depth(self, rising: float, falling: float) -> None:
        channel = torch.arange(self.d_model, dtype=torch.float64)
        late = channel / max(self.d_model - 1, 1)
        early = channel / self.d_model
        with torch.no_grad():
            self.decay.copy_(-5 + 8 * late ** (0.7 + 1.3 * rising))
            self.mix[0].copy_(early**falling)
            self.mix[1].copy_(early**falling + 0.3 * rising)
            self.mix[2].copy_(early ** (0.5 * falling))

    def forward(self, x: Tensor, state: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """x [B, T, D] -> (y [B, T, D], state by name)."""
        state = state or {}
        last = state["last"].to(x.dtype)[:, None] if state else torch.zeros_like(x[:, :1])
        past = torch.cat([last, x[:, :-1]], dim=1)
        key, value, receptance = (past + mu.to(x.dtype) * (x - past) for mu in self.mix)
        k, v = wide(self.key(key)), wide(self.value(value))
        p, carried = self._weighted_mean(k, v, state)
        y = self.out(self.receptance(receptance).sigmoid() * p.to(x.dtype))
        carried["last"] = x[:, -1]
        if self.spiking:
            y, carried["potential"] = integrate_and_fire(y, state.get("potential"))
        return y, carried

    def _weighted_mean(self, k: Tensor, v: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The exponentially weighted mean of the values: numerator and denominator relative to e^(running maximum).

        The maximum ε_t = max_s (k_s + (t − s) w) is a running maximum of k_s − s w, so it too comes in parallel; what
        it is does not change the result, and it takes no part in the gradient.
        """
        w = -wide(self.decay).exp()
        self.note_gate(w.expand_as(k))
        steps = torch.arange(1, k.shape[1] + 1, device=k.device, dtype=k.dtype)[:, None]
        top0 = state["top"].to(k.dtype) if state else torch.full_like(k[:, 0], NOTHING)
        top = torch.maximum((k - steps * w).detach().cummax(dim=1).values, top0[:, None]) + steps * w.detach()
        # rounding of steps · w may leave the maximum a little below k
        top = torch.maximum(top, k.detach())
        before = torch.cat([top0[:, None], top[:, :-1]], dim=1)
        decay, write = (before + w - top).exp(), (k - top).exp()
        sums = (state["numerator"], state["denominator"]) if state else (torch.zeros_like(k[:, 0]),) * 2
        h = linear_scan(
            decay.repeat(1, 1, 2), torch.cat([write * v, write], dim=-1), torch.cat(sums, dim=-1).to(k.dtype)
        )
        numerator, denominator = torch.cat([torch.cat(sums, dim=-1)[:, None].to(k.dtype), h], dim=1).chunk(2, dim=-1)
        bonus = wide(self.bonus) + k
        peak = torch.maximum(before, bonus).detach()
        old, new = (before - peak).exp(), (bonus - peak).exp()
        mean = (old * numerator[:, :-1] + new * v) / (old * denominator[:, :-1] + new)
        return mean, {"numerator": numerator[:, -1], "denominator": denominator[:, -1], "top": top[:, -1]}
