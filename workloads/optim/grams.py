"""Grams: Adam's step size in the direction of the current gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class Grams(Optimizer):
    """θ = θ − ηλθ − η · sign(g) ⊙ |m̂ / (√v̂ + ε)|, with Adam's bias-corrected moments m̂ and v̂.

    Source: arXiv:2412.17107, algorithm 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step on the gradients in `.grad`."""
        assert closure is None
        for group in self.param_groups:
            by_age: dict[int, list[torch.Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    if not state:
                        state.update(age=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
                    state["age"] += 1
                    by_age.setdefault(state["age"], []).append(p)
            # Experts that got no token in some step are younger than the rest
            for age, parameters in by_age.items():
                self._step_together(parameters, age, group)

    def _step_together(self, parameters: list[torch.Tensor], age: int, group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        gradients = [p.grad for p in parameters if p.grad is not None]
        mean = [self.state[p]["mean"] for p in parameters]
        square = [self.state[p]["square"] for p in parameters]
        torch._foreach_lerp_(mean, gradients, 1 - beta1)
        torch._foreach_mul_(square, beta2)
        torch._foreach_addcmul_(square, gradients, gradients, value=1 - beta2)
        size = torch._foreach_div(square, 1 - beta2**age)
        torch._foreach_sqrt_(size)
        torch._foreach_add_(size, group["eps"])
        move = torch._foreach_div(torch._foreach_abs(mean), size)
        torch._foreach_mul_(move, list(torch._foreach_sign(gradients)))
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, move, alpha=-group["lr"] / (1 - beta1**age))
