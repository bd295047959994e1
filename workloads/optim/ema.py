"""Exponential moving average of the weights, for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """w̄ = d w̄ + (1−d) w after each step, with d = min(decay, (1+t)/(10+t)), so that the start is soon forgotten."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.age = decay, 0
        self.parameters: list[torch.Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.averages = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        self.age += 1
        decay = min(self.decay, (1 + self.age) / (10 + self.age))
        torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights inside, and its own again after."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"age": self.age, "averages": self.averages}

    def load(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self.age = state["age"]
        torch._foreach_copy_(self.averages, state["averages"])

    def _swap(self) -> None:
        for parameter, average in zip(self.parameters, self.averages, strict=True):
            parameter.data, average.data = average.data, parameter.data
