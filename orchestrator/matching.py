"""`match:` makes variants comparable: one size of each configuration is solved so that all have the same budget. Pure.

The size is a whole number (an expert's width, a hidden width) in which the budget grows, and nearly in proportion. So
the search starts from the size that is there, doubles until the budget lies between two sizes, and draws a line between
them: a handful of models are looked at, and none much larger than the one that is found.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.errors import BadInput
from orchestrator.spec.model import Match

START = 64
"""Size that is tried first where the configuration names none."""


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

    def aim(self, config: Mapping[str, Any]) -> None:
        """`config` came first, and sets the target where the file names none."""
        if self._match.to is None:
            self._target = self._sizer.size(config)[self._match.by]

    def matched(self, config: Mapping[str, Any]) -> Matched | None:
        """`config` with its size solved; None for the configuration that sets the target.

        Raises:
            BadInput: the configuration has none of the sizes that may be adjusted.
        """
        if self._target is None:
            self.aim(config)
            return None
        name = next((each for each in self._match.adjust if _has(config, each)), None)
        if name is None:
            names = ", ".join(self._match.adjust)
            raise BadInput(f"`match.adjust` names {names}, none of which this configuration has.")
        value = self._solve(config, name)
        found = _with(config, name, value)
        return Matched(found, name, value, self._miss(found))

    def _solve(self, config: Mapping[str, Any], name: str) -> int:
        """The size from `min` to `max` whose cost is nearest to the target."""
        step = self._match.multiple_of

        def over(size: int) -> float:
            return self._miss(_with(config, name, size * step))

        least, most = -(-self._match.min // step), self._match.max // step
        low, high = _bracket(over, _start(config, name, step), least, most)
        return min((low, high), key=lambda size: abs(over(size))) * step

    @property
    def _wanted(self) -> float:
        assert self._target is not None
        return self._target

    def _miss(self, config: Mapping[str, Any]) -> float:
        return self._sizer.size(config)[self._match.by] / self._wanted - 1


def _bracket(over: Callable[[int], float], start: int, least: int, most: int) -> tuple[int, int]:
    """Neighbours with the target between them, or one size twice: that meets it, or the end that misses it least.

    over: how far a size is above the target, relative to it; it grows with the size.
    """
    low = high = min(max(start, least), most)
    while high < most and over(high) < 0:
        low, high = high, min(2 * high, most)
    while low > least and over(low) >= 0:
        low, high = max(low // 2, least), low
    if over(high) < 0 or over(low) >= 0:
        return (high, high) if over(high) < 0 else (low, low)
    halve = False
    while high - low > 1:
        below, above = over(low), over(high)
        guess = low + math.ceil((high - low) * (0.5 if halve else below / (below - above)))
        guess = min(max(guess, low + 1), high - 1)
        # A cost in leaps may keep the line's guesses at one end: every second one halves
        halve = not halve
        low, high = (guess, high) if over(guess) < 0 else (low, guess)
    return low, high


def _start(config: Any, name: str, step: int) -> int:
    """The size that is there, in steps; one to start from where it is left to its default."""
    for part in name.split("."):
        config = config[part]
    return round(config / step) if isinstance(config, int) else max(1, START // step)


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
