"""Sophia-G: a clipped, diagonally preconditioned step with the Gauss-Newton-Bartlett estimate of the curvature."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

EPSILON = 1e-12


class Sophia(Optimizer):
    """m = β₁ m + (1−β₁) g; θ = θ − ηλθ − η · clip(m / max(γh, ε), −1, 1), with h refreshed every few steps.

    h = β₂ h + (1−β₂) B ĝ ⊙ ĝ, where ĝ is the gradient of the mean loss over B targets drawn from the model's own
    predictive distribution. The caller makes ĝ: every `curvature_every` steps it fills the parameters' `.grad` with it
    and calls `update_curvature`.

    Source: arXiv:2305.14342, algorithms 2 and 3; β = (0.96, 0.99), γ = 0.05, ε = 1e-12, k = 10.
    """

    curvature_every = 10

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.96, 0.99),
        gamma: float = 0.05,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "gamma": gamma, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step on the gradients in `.grad`. A parameter whose curvature was never seen moves by its sign."""
        assert closure is None
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            momentum, curvature = self._state_of(parameters, "momentum"), self._state_of(parameters, "curvature")
            torch._foreach_lerp_(momentum, [p.grad for p in parameters], 1 - group["betas"][0])
            scale = torch._foreach_mul(curvature, group["gamma"])
            torch._foreach_clamp_min_(scale, EPSILON)
            move = torch._foreach_div(momentum, scale)
            torch._foreach_clamp_min_(move, -1.0)
            torch._foreach_clamp_max_(move, 1.0)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, move, alpha=-group["lr"])

    @torch.no_grad()
    def update_curvature(self, count: int) -> None:
        """Take ĝ from the parameters' `.grad`; `count` is B, the targets over which its loss was the mean."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                squares = torch._foreach_mul([p.grad for p in parameters], [p.grad for p in parameters])
                torch._foreach_mul_(squares, float(count))
                torch._foreach_lerp_(self._state_of(parameters, "curvature"), squares, 1 - group["betas"][1])

    def _state_of(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        for p in parameters:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in parameters]
