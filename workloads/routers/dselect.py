"""DSelect-k: a differentiable choice of experts by binary codes.

Shapes: N tokens, D width, E experts, m bits of an expert's number, C = 2^m codes, k selectors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workloads.routers.base import Gate, GateRouter, nonzero
from workloads.routers.options.selectors import DSelectK as Options
from workloads.slots import LayerContext, Routing

EPS = 1e-6


def smooth_step(t: Tensor, gamma: float) -> Tensor:
    """0 up to −γ/2, 1 from γ/2, −2t³/γ³ + 3t/(2γ) + ½ between (arXiv:2106.03760, sec. 3.1)."""
    inside = t.clamp(-gamma / 2, gamma / 2)
    return -2 * inside**3 / gamma**3 + 3 * inside / (2 * gamma) + 0.5


def num_bits(num_experts: int) -> int:
    """ceil(log2 E)."""
    return (num_experts - 1).bit_length()


def codes(num_experts: int) -> Tensor:
    """Bit j of every code, bool [2^m, m]; the first E codes are the experts'."""
    bits = num_bits(num_experts)
    return (torch.arange(2**bits)[:, None] >> torch.arange(bits)) % 2 == 1


class DSelectK(GateRouter):
    """q = Σ_i α_i Π_j (bit ? S(z_ij) : 1 − S(z_ij)) (arXiv:2106.03760, eq. 3-4)."""

    code: Tensor

    def __init__(self, d_model: int, num_experts: int, chosen: Options) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.active_experts = min(chosen.k, num_experts)
        self.register_buffer("code", codes(num_experts), persistent=False)
        shape = (chosen.k, num_bits(num_experts), *(() if chosen.static else (d_model,)))
        start = torch.empty(shape).uniform_(-chosen.gamma / 100, chosen.gamma / 100)
        # With one expert there is no bit to learn.
        self.bits = nn.Parameter(start, requires_grad=num_experts > 1)
        self.mix = nn.Parameter(torch.zeros(chosen.k)) if chosen.static else Gate(d_model, chosen.k)

    def selectors(self, x: Tensor) -> Tensor:
        """r [N, k, C], each row a distribution over the codes. Args: x [N, D]."""
        bits = self.bits.to(x.dtype)
        z = bits.expand(len(x), -1, -1) if self.options.static else torch.einsum("nd,kmd->nkm", x, bits)
        step = smooth_step(z, self.options.gamma)[:, :, None]
        return torch.where(self.code, step, 1 - step).prod(-1)

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns one assignment a non-zero gate."""
        r = self.selectors(x)
        mix = self.mix(x) if isinstance(self.mix, Gate) else self.mix.to(x.dtype).expand(len(x), -1)
        gate = (mix.softmax(-1)[..., None] * r).sum(1)[:, : self.num_experts]
        stats = {"binary_frac": (r.detach().max(-1).values == 1).float().mean()}
        return nonzero(gate, aux_losses=self._losses(r), stats=stats, probs=gate.detach())

    def _losses(self, r: Tensor) -> dict[str, Tensor]:
        losses = {}
        if self.options.entropy_weight:
            entropy = -(r * (r + EPS).log()).sum(-1).sum(-1).mean()
            losses["selector_entropy"] = self.options.entropy_weight * entropy
        if self.options.code_weight and len(self.code) > self.num_experts:
            losses["codes"] = self.options.code_weight * missing_mass(r[..., : self.num_experts])
        return losses


def missing_mass(existing: Tensor) -> Tensor:
    """mean Σ_i 1/(1e-6 + the selector's mass on experts that exist); k at best. Args: existing [N, k, E]."""
    return (1 / (EPS + existing.sum(-1))).sum(-1).mean()
