"""Dense softmax gates: sampled, with a temperature, with a non-linearity. Shapes: N tokens, D width, E experts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.routers.base import INIT_STD, GateRouter, every_expert, nonzero
from workloads.routers.options import dense_to_sparse as configs
from workloads.routers.schedule import ScheduledRouter
from workloads.slots import LayerContext, Routing

EVALUATION_SEED = 0


def gate_with_bias(d_model: int, num_experts: int) -> nn.Linear:
    """W from N(0, 0.02), b = 0."""
    gate = nn.Linear(d_model, num_experts)
    nn.init.normal_(gate.weight, std=INIT_STD)
    nn.init.zeros_(gate.bias)
    return gate


def gumbel_like(z: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Standard Gumbel noise in the shape of z."""
    return -torch.empty_like(z).exponential_(generator=generator).log()


def above(gates: Tensor, threshold: float, **parts: object) -> Routing:
    """The plan of the gates over the threshold; all of them where it is 0. Args: gates [N, E]."""
    return nonzero(gates * (gates.detach() > threshold), **parts) if threshold else every_expert(gates, **parts)


class Gumbel(GateRouter):
    """Sampled soft gate, averaged over draws in evaluation (arXiv:2502.03608, sec. 3)."""

    def __init__(self, d_model: int, num_experts: int, chosen: configs.Gumbel) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.active_experts = num_experts
        self.gate = gate_with_bias(d_model, num_experts)

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N·E assignments."""
        z = self.gate(x)
        tau = self.options.temperature
        if self.training:
            alpha = ((z + gumbel_like(z)) / tau).softmax(-1)
        elif self.options.samples:
            generator = torch.Generator(z.device).manual_seed(EVALUATION_SEED)
            draws = [((z + gumbel_like(z, generator=generator)) / tau).softmax(-1) for _ in range(self.options.samples)]
            alpha = torch.stack(draws).mean(0)
        else:
            alpha = (z / tau).softmax(-1)
        shift = (alpha.detach() - z.detach().softmax(-1)).abs().sum(-1).mean() / 2
        return every_expert(alpha, stats={"noise_shift": shift}, probs=z.detach().softmax(-1))


class Temperature(ScheduledRouter):
    """softmax((W x + b)/τ) (arXiv:2401.13875, eq. 2)."""

    def __init__(self, d_model: int, num_experts: int, chosen: configs.TemperatureDenseToSparse) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.active_experts = num_experts
        self.gate = gate_with_bias(d_model, num_experts)
        learned = chosen.mode == "learned"
        self.log_temperature = nn.Parameter(torch.tensor(math.log(chosen.temperature))) if learned else None

    def temperature(self) -> Tensor | float:
        """τ now."""
        if self.log_temperature is not None:
            return self.log_temperature.exp()
        if self.options.mode == "fixed":
            return self.options.temperature
        return annealed(
            self.options.temperature, self.options.end_temperature, self.progress / self.options.decay, "exponential"
        )

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns one assignment a gate over the threshold."""
        tau = self.temperature()
        probs = (self.gate(x) / tau).softmax(-1)
        stats = {"temperature": torch.as_tensor(tau, device=x.device).detach()}
        return above(probs, self.options.threshold, stats=stats, probs=probs.detach())


_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda a: a,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "sin": torch.sin,
}


class Activated(GateRouter):
    """softmax((φ(W x) + b)/τ) (arXiv:2401.13875, sec. 4)."""

    def __init__(self, d_model: int, num_experts: int, chosen: configs.ActivationDenseToSparse) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.active_experts = num_experts
        self.gate = gate_with_bias(d_model, num_experts)

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns one assignment a gate over the threshold."""
        bent = _ACTIVATIONS[self.options.activation](F.linear(x, self.gate.weight))
        z = (bent + self.gate.bias) / self.options.temperature
        probs = z.softmax(-1) if self.options.form == "softmax" else z.sigmoid()
        stats = {"activation_std": bent.detach().std(correction=0)}
        return above(probs, self.options.threshold, stats=stats, probs=probs.detach())


def annealed(start: float, end: float, fraction: float, schedule: str) -> float:
    """From start to end as fraction goes from 0 to 1, exponentially or linearly; end from then on."""
    t = min(max(fraction, 0.0), 1.0)
    return start * (end / start) ** t if schedule == "exponential" else start + (end - start) * t
