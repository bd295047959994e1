"""EvoMoE: experts that evolve from one, behind a gate that evolves from dense to sparse.

Shapes: N tokens, D width, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kernels import moe_route
from workloads.routers.base import Gate, nonzero, token_choice
from workloads.routers.dense import annealed, gumbel_like
from workloads.routers.losses import balance
from workloads.routers.options.dense_to_sparse import DenseToSparse as Options
from workloads.routers.schedule import ScheduledRouter
from workloads.slots import LayerContext, Routing


class DenseToSparse(ScheduledRouter):
    """Expert-diversify, then a Gumbel-softmax gate annealed to top-1 (arXiv:2112.14397, sec. 3.2-3.3)."""

    diversified: Tensor
    mask_seed: Tensor

    def __init__(self, d_model: int, num_experts: int, chosen: Options) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.gate = Gate(d_model, num_experts)
        self.register_buffer("diversified", torch.tensor(chosen.diversify == 0 or num_experts == 1))
        # Drawn once, so that all workers mask alike and a resumed trial masks as the undisturbed one.
        self.register_buffer("mask_seed", torch.randint(2**31, ()))

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N assignments in phases 1 and 3, up to N·E in phase 2."""
        z = self.gate(x)
        if self.in_first_phase():
            first = torch.zeros(len(x), 1, dtype=torch.int64, device=x.device)
            # Every parameter takes part in every phase, as data-parallel training demands; here with gradient 0.
            return token_choice(first, 1 + 0 * z[:, :1], stats=self._stats(0.0))
        if not self.training or self.progress >= self.options.hard:
            return self._hard(z)
        tau = self.temperature()
        soft = ((z + gumbel_like(z)) / tau).softmax(-1)
        selected = soft.detach() > self.options.threshold
        weight = soft if self.options.weights == "gumbel" else z.softmax(-1)
        share = soft.mean(0) * selected.to(soft.dtype).mean(0)
        losses = {"balance": self.options.balance_weight * self.num_experts * share.sum()}
        return nonzero(weight * selected, aux_losses=losses, stats=self._stats(tau), probs=soft.detach())

    def in_first_phase(self) -> bool:
        """Whether one expert still serves all."""
        return self.progress < self.options.diversify and self.num_experts > 1

    def temperature(self) -> float:
        """τ of phase 2 now."""
        chosen = self.options
        fraction = (self.progress - chosen.diversify) / chosen.decay
        return annealed(chosen.start_temperature, chosen.end_temperature, fraction, chosen.schedule)

    def _hard(self, z: Tensor) -> Routing:
        index, weight, _ = moe_route(z, 1, renormalize=False)
        probs = z.softmax(-1)
        losses = {"balance": self.options.balance_weight * balance(probs, index, training=self.training)}
        return token_choice(index, weight, aux_losses=losses, stats=self._stats(0.0), probs=probs.detach())

    def _stats(self, temperature: float) -> dict[str, Tensor]:
        return {"temperature": torch.tensor(temperature, device=self.clock.device)}

    @torch.no_grad()
    def prepare_experts(self, experts: nn.Module) -> None:
        """At the end of phase 1: every expert becomes a randomly masked copy of expert 0."""
        if self.in_first_phase() or bool(self.diversified):
            return
        generator = torch.Generator().manual_seed(int(self.mask_seed))
        for weight in (p for p in experts.parameters() if p.ndim == 3):
            masks = torch.rand(weight.shape[0] - 1, *weight.shape[1:], generator=generator) >= self.options.mask
            weight[1:] = weight[:1] * masks.to(weight.device)
        self.diversified.fill_(True)
