"""`match:` makes variants comparable: one size of each configuration is solved so that all have the same budget. Pure.

The size is a whole number (an expert's width, a hidden width) in which the budget grows, so bisection finds the one
that comes closest.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.errors import BadInput
from orchestrator.spec.model import Match


class Sizer(Protocol):
    """Knows what a configuration costs."""

    def size(self, config: Mapping[str, Any]) -> Mapping[str, float]:
        """params, active_params, train_flops_per_token, ...; raises BadInput where no model has the configuration."""

    def memory_bytes(self, config: Mapping[str, Any]) -> int:
        """What training it takes, in bytes; raises BadInput where no model has the configuration."""

    def data_checksum(self, config: Mapping[str, Any]) -> int:
        """What its trials report as `data_checksum`; raises BadInput where the data are not here."""


@dataclass(frozen=True, slots=True)
class Matched:
    """config: with its size solved. name, value: which, and what it became. off: relative miss of the target."""

    config: dict[str, Any]
    name: str
    value: int
    off: float


class Matcher:
    """Matches one configuration after the other; the first sets the target where the file names none."""

    def __init__(self, match: Match, sizer: Sizer) -> None:
        self._match, self._sizer, self._target = match, sizer, match.to

    def matched(self, config: Mapping[str, Any]) -> Matched | None:
        """`config` with its size solved; None for the configuration that sets the target.

        Raises:
            BadInput: the configuration has none of the sizes that may be adjusted.
        """
        if self._target is None:
            self._target = self._sizer.size(config)[self._match.by]
            return None
        name = next((each for each in self._match.adjust if _has(config, each)), None)
        if name is None:
            names = ", ".join(self._match.adjust)
            raise BadInput(f"`match.adjust` names {names}, none of which this configuration has.")
        value = self._solve(config, name)
        found = _with(config, name, value)
        return Matched(found, name, value, self._miss(found))

    def _solve(self, config: Mapping[str, Any], name: str) -> int:
        low, high = self._match.min, self._match.max
        step = self._match.multiple_of
        low, high = -(-low // step), high // step
        while low < high:
            middle = (low + high) // 2
            if self._sizer.size(_with(config, name, middle * step))[self._match.by] < self._wanted:
                low = middle + 1
            else:
                high = middle
        # The first that reaches the target, or the one before it: whichever is nearer.
        around = [each * step for each in (low - 1, low) if each * step >= self._match.min]
        return min(around, key=lambda value: abs(self._miss(_with(config, name, value))))

    @property
    def _wanted(self) -> float:
        assert self._target is not None
        return self._target

    def _miss(self, config: Mapping[str, Any]) -> float:
        return self._sizer.size(config)[self._match.by] / self._wanted - 1


def _has(config: Any, name: str) -> bool:
    for part in name.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return False
        config = config[part]
    return True


def _with(config: Mapping[str, Any], name: str, value: int) -> dict[str, Any]:
    changed = copy.deepcopy(dict(config))
    *path, last = name.split(".")
    here: Any = changed
    for part in path:
        here = here[part]
    here[last] = value
    return changed
