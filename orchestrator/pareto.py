"""Which of several results are best where several metrics count. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

K = TypeVar("K")


def front(points: Mapping[K, Sequence[float]], goals: Sequence[str]) -> set[K]:
    """The points that no other dominates: as good in every metric and better in one.

    Args:
        points: values by name, one for each goal.
        goals: "minimize" or "maximize".
    """
    signs = [1.0 if goal == "minimize" else -1.0 for goal in goals]
    costs = {
        key: tuple(sign * value for sign, value in zip(signs, point, strict=True)) for key, point in points.items()
    }
    # In ascending order nothing is dominated by what comes later
    kept: list[tuple[float, ...]] = []
    for cost in sorted(set(costs.values())):
        if not any(all(a <= b for a, b in zip(other, cost, strict=True)) for other in kept):
            kept.append(cost)
    best = set(kept)
    return {key for key, cost in costs.items() if cost in best}
