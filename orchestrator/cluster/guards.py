"""What ends trials besides early stopping: the sweep's `stop_if`, and its `budget`. Rebuilt from SQL by each driver."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.lifecycle import TRIAL_ENDS, TrialState
from orchestrator.ports import Clock, TrialStore
from orchestrator.records import Healthy, Sweep, Trial
from orchestrator.spec.condition import parse_condition
from orchestrator.spec.operations import Budget, Resources, StopRule
from orchestrator.spending import out_of_patience, used_up
from orchestrator.stopping import Met, Watch
from workloads import checkpoint_files

NOTHING_HEALTHY = "nothing before it was healthy"


@dataclass(frozen=True, slots=True)
class End:
    """A trial ends. healthy: what alone counts of it; None for all."""

    reason: str
    healthy: Healthy | None = None


class StopIf:
    """The conditions of a sweep, over the reports of its trials."""

    def __init__(self, sweep: Sweep, rows: TrialStore, checkpoints: Callable[[Trial], Path]) -> None:
        """checkpoints: the directory that holds a trial's."""
        self._sweep, self._rows, self._checkpoints = sweep, rows, checkpoints
        self._watch = Watch(rules_of(sweep.spec))

    def look(self, trial: Trial, step: int, metrics: Mapping[str, float]) -> End | None:
        """Whether a trial ends at this report, which is recorded already.

        Args:
            metrics: as `condition.stored` gives them.
        """
        if not self._watch.names:
            return None
        if not self._watch.knows(trial.id):
            self._watch.recall(trial.id, self._history(trial, before=step))
        met = self._watch.seen(trial.id, step, metrics)
        if met is None:
            return None
        return self._rewound(trial, met) if met.rewind else End(met.reason)

    def forget(self, trial_id: int) -> None:
        """The trial reports no more; if it does after all, what it reported before is read again."""
        self._watch.forget(trial_id)

    def _history(self, trial: Trial, *, before: int) -> dict[int, dict[str, float]]:
        reports: dict[int, dict[str, float]] = defaultdict(dict)
        for name in self._watch.names if trial.step else ():
            for step, value in self._rows.curve(trial.id, name):
                if step < before:
                    reports[step][name] = value
        return reports

    def _rewound(self, trial: Trial, met: Met) -> End:
        """Back to the best report before the condition held, of which there is a checkpoint where there is any."""
        curve = dict(self._rows.curve(trial.id, self._sweep.metric))
        healthy = {step: value for step, value in curve.items() if step < met.since}
        if not healthy:
            return End(f"{met.reason}; {NOTHING_HEALTHY}", Healthy(until=None))
        directory = self._checkpoints(trial)
        there = {step for step in checkpoint_files.steps_in(directory) if step in healthy}
        sign = -1 if self._sweep.goal == "maximize" else 1
        best = min(there or healthy, key=lambda step: (sign * healthy[step], step))
        checkpoint_files.forget_after(directory, best)
        return End(f"{met.reason}; rewound to step {best}", Healthy(until=best))


class Limits:
    """What is left of a sweep's budget."""

    def __init__(self, sweep: Sweep, rows: TrialStore, clock: Clock) -> None:
        """To be made while none of the sweep's trials runs."""
        self._sweep, self._rows, self._clock = sweep, rows, clock
        self._budget = Budget.model_validate(sweep.spec.get("budget") or {})
        self._resources = Resources.model_validate(sweep.spec.get("resources") or {})
        self._since: dict[int, datetime] = {}
        self._held_s = rows.held_s(sweep.id)
        self._impatient = self._look_for_progress()

    def started(self, trial_id: int) -> None:
        """It holds a place."""
        self._since[trial_id] = self._clock.now()

    def left(self, trial_id: int) -> None:
        """It holds none any more."""
        since = self._since.pop(trial_id, None)
        if since is not None:
            self._held_s += max((self._clock.now() - since).total_seconds(), 0.0)
            self._impatient = self._impatient or self._look_for_progress()

    def used_up(self) -> str:
        """Why trials that run must end, in one sentence; "" while they may go on."""
        now = self._clock.now()
        running_s = sum(max((now - since).total_seconds(), 0.0) for since in self._since.values())
        passed_s = (now - (self._sweep.started_at or now)).total_seconds()
        return used_up(self._budget, self._resources, held_s=self._held_s + running_s, passed_s=passed_s)

    def exhausted(self) -> str:
        """Why no further trial may start, in one sentence; "" while one may."""
        return self._impatient or self.used_up()

    def close(self) -> None:
        """End what is open, if nothing more may start: with the result that it has, or none."""
        reason = self.exhausted()
        if not reason:
            return
        for trial in self._rows.trials(self._sweep.id):
            if trial.state not in TRIAL_ENDS:
                told = reason if trial.attempt else f"not started: {reason}"
                self._rows.end_trial(trial.id, TrialState.STOPPED, reason=told, now=self._clock.now())

    def _look_for_progress(self) -> str:
        if self._budget.patience is None:
            return ""
        maximize = self._sweep.goal == "maximize"
        return out_of_patience(self._budget, self._rows.trials(self._sweep.id), maximize=maximize)


def rules_of(spec: Mapping[str, Any]) -> list[StopRule]:
    """The conditions of a sweep's spec."""
    return [StopRule.model_validate(rule) for rule in spec.get("stop_if") or ()]


def keeping_healthy(spec: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's configuration that keeps what `rewind` would go back to: a checkpoint of each report, long enough."""
    reports = [parse_condition(rule.when).reports for rule in rules_of(spec) if rule.rewind is not None]
    if not reports:
        return dict(config)
    training = config["training"]
    kept = max(training.get("keep_checkpoints", 1), 1 + max(reports))
    return {**config, "training": {**training, "keep_checkpoints": kept, "checkpoint_every": None}}
