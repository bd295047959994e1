"""Alarms in a trial's reports: metrics named health/KIND, the number of layers in which something has collapsed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

PREFIX = "health/"


class News(NamedTuple):
    """An alarm that began, changed or ended: a line for the audit log."""

    what: str
    reason: str


def alarms(metrics: Mapping[str, float]) -> dict[str, int]:
    """The alarms that these metrics hold: layers by kind, none that are silent."""
    return {name.removeprefix(PREFIX): int(n) for name, n in metrics.items() if name.startswith(PREFIX) and n > 0}


def news(before: Mapping[str, float], report: Mapping[str, float], step: int) -> list[News]:
    """What a report says that the metrics `before` it did not. A kind that the report leaves out is as it was."""
    was, now = alarms(before), alarms(report)
    kinds = sorted(name.removeprefix(PREFIX) for name in report if name.startswith(PREFIX))
    begun = [
        News(f"alarm: {kind}", f"in {layers(now[kind])} at step {step}")
        for kind in kinds
        if now.get(kind, 0) > was.get(kind, 0)
    ]
    over = [News(f"alarm over: {kind}", f"since step {step}") for kind in kinds if kind in was and kind not in now]
    return begun + over


def layers(count: int) -> str:
    """`1 layer`, `2 layers`."""
    return f"{count} layer{'' if count == 1 else 's'}"
