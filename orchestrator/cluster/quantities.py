"""A sweep's axes as numbers that a searcher can work on: one quantity an axis, there and back.

A range is its own value, except the forms that Optuna does not know, which go by their quantile; rows of values go by
their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.planning import as_scalar
from orchestrator.records import Scalar
from orchestrator.spec.model import Parameter
from orchestrator.spec.space import Axis, Values, value_at

ALMOST_ONE = math.nextafter(1.0, 0.0)
TINY = 1e-9


class Quantities:
    """The axes of one sweep file, each under the names of its parameters."""

    def __init__(self, axes: list[Axis]) -> None:
        self.axes = {".".join(axis.names): axis for axis in axes}
        self.distributions = {name: distribution_of(axis) for name, axis in self.axes.items()}

    def values(self, quantities: Mapping[str, Any]) -> Values:
        """Values of the parameters at these quantities, one for each axis."""
        values: Values = {}
        for name, axis in self.axes.items():
            quantity = quantities[name]
            if axis.range is None:
                values |= axis.rows[int(quantity)]
            else:
                by_quantile = _by_quantile(axis)
                values[axis.names[0]] = value_at(axis.range, float(quantity)) if by_quantile else quantity
        return values

    def of(self, params: Mapping[str, Scalar]) -> dict[str, Any]:
        """What a searcher would have proposed for recorded values; axes that did not apply are left out."""
        found: dict[str, Any] = {}
        for name, axis in self.axes.items():
            if axis.range is not None:
                value = params.get(axis.names[0])
                if isinstance(value, int | float):
                    found[name] = quantile_of(axis.range, value) if _by_quantile(axis) else value
                continue
            for index, row in enumerate(axis.rows):
                if all(params.get(key) == as_scalar(value) for key, value in row.items()):
                    found[name] = index
                    break
        return found

    def at(self, name: str, quantile: float) -> Any:
        """The quantity at a quantile in [0, 1] of an axis."""
        axis = self.axes[name]
        if axis.range is None:
            return min(int(quantile * len(axis.rows)), len(axis.rows) - 1)
        return quantile if _by_quantile(axis) else value_at(axis.range, min(quantile, ALMOST_ONE))

    def quantile(self, name: str, quantity: Any) -> float:
        """Where a range's quantity lies in its distribution, in [0, 1]."""
        axis = self.axes[name]
        assert axis.range is not None, "rows have no order"
        return float(quantity) if _by_quantile(axis) else quantile_of(axis.range, quantity)

    def inside(self, name: str, quantity: Any) -> Any:
        """The nearest quantity that an axis has."""
        if self.axes[name].range is None:
            return quantity
        return self.at(name, min(max(self.quantile(name, quantity), 0.0), 1.0))


def distribution_of(axis: Axis) -> BaseDistribution:
    """An axis as Optuna knows it: rows by number, ranges as they are, normal ones by their quantile."""
    if axis.range is None:
        return CategoricalDistribution(list(range(len(axis.rows))))
    kind, low, high, step = axis.range.kind, axis.range.min, axis.range.max, axis.range.q
    if _by_quantile(axis):
        return FloatDistribution(0.0, 1.0)
    assert low is not None, "the loader checks that a range has both ends"
    assert high is not None, "the loader checks that a range has both ends"
    if kind in ("int_uniform", "int_log_uniform"):
        return IntDistribution(int(low), int(high), log="log" in kind)
    if kind == "q_uniform":
        return FloatDistribution(low, high, step=step)
    return FloatDistribution(low, high, log="log" in kind)


def quantile_of(parameter: Parameter, value: float) -> float:
    """Where a value lies in the distribution of a range; the inverse of `value_at`, not held to [0, 1]."""
    if parameter.kind in ("normal", "q_normal"):
        return NormalDist(parameter.mu or 0.0, parameter.sigma or 1.0).cdf(value)
    assert parameter.min is not None, "the loader checks that a range has both ends"
    assert parameter.max is not None, "the loader checks that a range has both ends"
    low, high = float(parameter.min), float(parameter.max)
    if "log" in parameter.kind:
        return math.log(max(value, low * TINY) / low) / math.log(high / low)
    if parameter.kind == "int_uniform":
        # The middle of the part of [0, 1) that belongs to the number
        return (value - low + 0.5) / (high - low + 1)
    return (value - low) / (high - low)


def _by_quantile(axis: Axis) -> bool:
    return axis.range is not None and axis.range.kind in ("normal", "q_normal", "q_log_uniform_values")
