"""The space that a sweep file spans: axes, and points of it from quantiles in [0, 1). Pure.

Every way to search (grid, random, Sobol, and searchers that learn) sees the same axes, and a point of one becomes
values in one place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import NormalDist
from typing import Any

from orchestrator.spec.model import Parameter, SweepSpec

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction of the search: parameters that move together through `rows`, or one parameter over a range.

    weights: chance of each row; None for equal ones.
    """

    names: tuple[str, ...]
    rows: tuple[Values, ...] = ()
    weights: tuple[float, ...] | None = None
    range: Parameter | None = None

    def at(self, quantile: float) -> Values:
        """Values at a quantile in [0, 1) of the axis."""
        if self.range is not None:
            return {self.names[0]: value_at(self.range, quantile)}
        return self.rows[self._row(quantile)]

    def _row(self, quantile: float) -> int:
        if self.weights is None:
            return min(int(quantile * len(self.rows)), len(self.rows) - 1)
        for index, edge in enumerate(accumulate(self.weights)):
            if quantile < edge and self.weights[index] > 0:
                return index
        return max(index for index, weight in enumerate(self.weights) if weight > 0)


def axes_of(spec: SweepSpec) -> list[Axis]:
    """The axes of a sweep file, in the order of their first parameter. Derived parameters have none."""
    group_of = {name: tuple(group) for group in spec.zip for name in group}
    axes: dict[tuple[str, ...], Axis] = {}
    for name, parameter in spec.parameters.items():
        names = group_of.get(name, (name,))
        if parameter.is_range:
            axes[names] = Axis(names, range=parameter)
        elif parameter.choices is not None and names not in axes:
            columns = [spec.parameters[each].choices or [] for each in names]
            rows = tuple(dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
            weights = spec.parameters[names[0]].probabilities
            axes[names] = Axis(names, rows, tuple(weights) if weights else None)
    return list(axes.values())


def cells_of(axes: Sequence[Axis]) -> int | None:
    """Number of cells of a finite space; None where a range makes it infinite."""
    return None if any(axis.range for axis in axes) else math.prod(len(axis.rows) for axis in axes)


def point(axes: Sequence[Axis], quantiles: Sequence[float]) -> Values:
    """Values at a point of the unit cube."""
    found: Values = {}
    for axis, quantile in zip(axes, quantiles, strict=True):
        found |= axis.at(quantile)
    return found


def value_at(parameter: Parameter, quantile: float) -> Any:
    """Value of a range at a quantile in [0, 1) of its distribution."""
    kind, low, high = parameter.kind, parameter.min, parameter.max
    if kind in ("normal", "q_normal"):
        inside = min(max(quantile, 1e-12), 1 - 1e-12)
        value = NormalDist(parameter.mu or 0.0, parameter.sigma or 1.0).inv_cdf(inside)
    else:
        assert low is not None, "the loader checks that a range has both ends"
        assert high is not None, "the loader checks that a range has both ends"
        if kind == "int_uniform":
            return int(low) + min(int(quantile * (int(high) - int(low) + 1)), int(high) - int(low))
        if "log" in kind:
            value = math.exp(math.log(low) + quantile * (math.log(high) - math.log(low)))
        else:
            value = low + quantile * (high - low)
        if kind.startswith("int_"):
            return min(int(high), max(int(low), round(value)))
    return _to_step(value, parameter) if kind.startswith("q_") else value


def _to_step(value: float, parameter: Parameter) -> float | int:
    step = parameter.q or 1
    value = round(value / step) * step
    if parameter.min is not None and parameter.max is not None:
        value = min(math.floor(parameter.max / step) * step, max(math.ceil(parameter.min / step) * step, value))
    return int(value) if isinstance(step, int) else float(f"{value:.12g}")
