"""What a curve is worth: its last value, its best, or the mean of its last reports. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean
from typing import Any


@dataclass(frozen=True, slots=True)
class Aggregate:
    """how: last, best or mean_last_k. k: reports that mean_last_k looks at. maximize: larger is better."""

    how: str = "last"
    k: int = 1
    maximize: bool = False

    @classmethod
    def of(cls, spec: Mapping[str, Any], goal: str) -> Aggregate:
        """As a sweep's spec says; `last` where it is silent."""
        words = spec.get("metric") or {}
        return cls(words.get("aggregate", "last"), words.get("k", 1), goal == "maximize")

    def value(self, values: Sequence[float]) -> float:
        """The worth of a curve that is not empty."""
        match self.how:
            case "best":
                return max(values) if self.maximize else min(values)
            case "mean_last_k":
                return fmean(values[-self.k :])
        return values[-1]

    def running(self, curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
        """(step, worth so far) for each (step, value) of a curve in order of step."""
        steps, values = [step for step, _ in curve], [value for _, value in curve]
        match self.how:
            case "best":
                values = list(accumulate(values, max if self.maximize else min))
            case "mean_last_k":
                values = [fmean(values[max(0, end - self.k) : end]) for end in range(1, len(values) + 1)]
        return list(zip(steps, values, strict=True))
