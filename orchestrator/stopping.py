"""`stop_if`: which trials meet a condition for as many reports in a row as it says. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.spec.condition import NONFINITE, parse_condition
from orchestrator.spec.operations import StopRule


@dataclass(frozen=True, slots=True)
class Met:
    """A condition has held for long enough. since: the first step of those at which it held."""

    reason: str
    since: int
    rewind: bool


class Watch:
    """Looks at each report of each trial.

    What it remembers follows from the reports, in whatever process they are told: `recall` brings a trial up to date.
    """

    def __init__(self, rules: Sequence[StopRule]) -> None:
        self._rules = [(parse_condition(rule.when), rule.rewind is not None) for rule in rules]
        self._held: dict[int, list[dict[int, bool]]] = {}

    @property
    def names(self) -> list[str]:
        """Everything that the conditions read of a report."""
        read = dict.fromkeys(name for condition, _ in self._rules for name in condition.names)
        return [each for name in read for each in (name, f"{NONFINITE}{name}")]

    def knows(self, trial_id: int) -> bool:
        """It has seen a report of the trial, or was told of those before."""
        return trial_id in self._held

    def forget(self, trial_id: int) -> None:
        """Nothing is to be kept of the trial: it has ended, or another driver may go on with it."""
        self._held.pop(trial_id, None)

    def recall(self, trial_id: int, reports: Mapping[int, Mapping[str, float]]) -> None:
        """Take in what a trial reported before, by step."""
        for step in sorted(reports):
            self.seen(trial_id, step, reports[step])

    def seen(self, trial_id: int, step: int, metrics: Mapping[str, float]) -> Met | None:
        """Take in a report; the first condition that it completes.

        Args:
            metrics: as `condition.stored` gives them. A step that was seen before, after a restart from a checkpoint,
                is seen anew with all that followed it.
        """
        tracks = self._held.setdefault(trial_id, [{} for _ in self._rules])
        met = None
        for (condition, rewind), held in zip(self._rules, tracks, strict=True):
            for later in [known for known in held if known >= step]:
                del held[later]
            holds = condition.holds(metrics)
            if holds is None:
                continue
            held[step] = holds
            run = _last_run(held)
            if met is None and len(run) >= condition.reports:
                values = ", ".join(f"{name} {metrics[name]:.4g}" for name in condition.names if name in metrics)
                told = f"stop_if at step {step}: {condition.text}" + (f" ({values})" if values else "")
                met = Met(told, run[0], rewind)
        return met


def _last_run(held: Mapping[int, bool]) -> list[int]:
    """The steps, in order, since the condition last did not hold."""
    run: list[int] = []
    for step in sorted(held, reverse=True):
        if not held[step]:
            break
        run.append(step)
    return run[::-1]
