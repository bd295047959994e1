"""Sees a routing or a gate collapse in its health figures. Pure arithmetic, no torch.

Entropy and gates are compared with the layer's own beginning: some gates are shut, and some routers decided, by
design. A dead expert is dead whenever it died.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

BASELINE_REPORTS = 2
"""A layer's beginning: the mean of its first so many reports."""
PATIENCE = 2
"""Reports in a row that must agree; with the one in which it happens, an alarm comes within three."""

DEAD_SHARE = 0.1
"""An expert is dead below this share of the mean load ..."""
FEWEST_EXPECTED = 8.0
"""... where the mean load is at least this many assignments: below, chance alone empties experts."""

ENTROPY_FALL, ENTROPY_FLOOR, UNBALANCED_CV = 0.33, 0.15, 1.0
SATURATED, SATURATED_AT_START = 0.97, 0.85

KINDS = ("expert_dead", "entropy_low", "gate_saturated")


class Layer(Protocol):
    """What the detector reads of one layer: see `workloads.diagnostics.LayerView`."""

    routing: dict[str, float]
    loads: list[float]
    gate: dict[str, float]


class CollapseDetector:
    """Raises `expert_dead`, `entropy_low` and `gate_saturated` for a layer once they hold for `PATIENCE` reports.

    expert_dead: one and the same expert gets less than a tenth of the mean load.
    entropy_low: the tokens' gate entropy has fallen under a third of its beginning and under 0.15 of ln E, while
        few experts take the load (its coefficient of variation is above 1): decided routers with balanced loads
        are healthy.
    gate_saturated: more than 97% of the forget gate's values are below 0.05 or above 0.95, and at the beginning
        less than 85% were.
    """

    def __init__(self) -> None:
        self._beginnings: dict[str, list[list[float]]] = {}
        self._streaks: dict[str, int] = {}

    def update(self, layers: Sequence[Layer]) -> dict[str, float]:
        """Take in one report. Returns, by column name, the number of layers in which each kind holds now."""
        alarms = dict.fromkeys(KINDS, 0)
        for index, layer in enumerate(layers):
            alarms["expert_dead"] += self._an_expert_is_dead(index, layer.loads)
            for kind, holds in (
                ("entropy_low", "entropy_norm" in layer.routing and self._entropy_fell(index, layer.routing)),
                ("gate_saturated", bool(layer.gate) and self._gate_saturated(index, layer.gate)),
            ):
                alarms[kind] += self._lasts(f"{index}/{kind}", holds)
        return {f"health/{kind}": float(count) for kind, count in alarms.items()}

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"beginnings": self._beginnings, "streaks": self._streaks}

    def load(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self._beginnings, self._streaks = dict(state["beginnings"]), dict(state["streaks"])

    def _an_expert_is_dead(self, index: int, loads: Sequence[float]) -> bool:
        mean = sum(loads) / max(1, len(loads))
        judged = mean >= FEWEST_EXPECTED
        dead = [self._lasts(f"{index}/{e}", judged and load < DEAD_SHARE * mean) for e, load in enumerate(loads)]
        return any(dead)

    def _entropy_fell(self, index: int, routing: Mapping[str, float]) -> bool:
        entropy = routing["entropy_norm"]
        (start,) = self._beginning(f"{index}/entropy", [entropy])
        fell = entropy < ENTROPY_FALL * start and entropy < ENTROPY_FLOOR
        return fell and routing.get("cv", math.inf) > UNBALANCED_CV

    def _gate_saturated(self, index: int, gate: Mapping[str, float]) -> bool:
        sides = [gate["sat_low"], gate["sat_high"]]
        beginning = self._beginning(f"{index}/gate", sides)
        return any(now > SATURATED and start < SATURATED_AT_START for now, start in zip(sides, beginning, strict=True))

    def _beginning(self, key: str, values: list[float]) -> list[float]:
        """The mean of the first reports, this one included while they last."""
        seen = self._beginnings.setdefault(key, [])
        if len(seen) < BASELINE_REPORTS:
            seen.append(values)
        return [sum(column) / len(seen) for column in zip(*seen, strict=True)]

    def _lasts(self, key: str, holds: bool) -> bool:
        self._streaks[key] = self._streaks.get(key, 0) + 1 if holds else 0
        return self._streaks[key] >= PATIENCE
