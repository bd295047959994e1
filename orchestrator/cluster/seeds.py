"""Early stopping sees configurations, never one lucky seed: the mean of a configuration's seeds, once all are there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol

from orchestrator.cluster.messages import STEP
from orchestrator.lifecycle import TrialState
from orchestrator.records import Trial

Curve = Sequence[tuple[int, float]]


class Rule(Protocol):
    """A Tune scheduler that can say why it stopped a trial."""

    STOP: str

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial that it will be asked about."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """STOP or something else."""

    def explain(self, trial_id: str, step: int, value: float) -> str:
        """One sentence, after a STOP."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The trial ends here. reason: one sentence."""

    reason: str


@dataclass(frozen=True, slots=True)
class Known:
    """A trial as a scheduler needs it: a name to tell it by."""

    trial_id: str


class SeedGroups:
    """Puts a rule's trials, which are configurations, together from the sweep's, which have a seed each.

    With fewer slots than seeds, the first seeds of a configuration run before the last one reports, and can be stopped
    no earlier than it.
    """

    def __init__(self, rule: Rule, metric: str) -> None:
        self._rule, self._metric = rule, metric
        self._members: dict[str, set[int]] = defaultdict(set)
        self._values: dict[str, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        """By configuration, step and trial, of the steps that not all of its seeds have reported."""
        self._stopped: dict[str, Stop] = {}

    def add(self, trial: Trial) -> None:
        """The sweep has this trial."""
        if trial.config_hash not in self._members:
            self._rule.on_trial_add(None, Known(trial.config_hash))
        self._members[trial.config_hash].add(trial.id)

    def moved(self, trial: Trial) -> None:
        """The trial has another state. Where it gave up, the others of its configuration no longer wait for it."""
        if trial.state in (TrialState.FAILED, TrialState.STOPPED, TrialState.CANCELLED, TrialState.PAUSED):
            self._members[trial.config_hash].discard(trial.id)
        elif trial.state is TrialState.PENDING:
            self._members[trial.config_hash].add(trial.id)

    def report(self, trial: Trial, step: int, value: float) -> Stop | None:
        """Whether the trial is to stop at this report."""
        name = trial.config_hash
        if stopped := self._stopped.get(name):
            return stopped
        here = self._values[name][step]
        here[trial.id] = value
        if not self._members[name] <= here.keys():
            return None
        mean = fmean(here.values())
        del self._values[name][step]
        if self._rule.on_trial_result(None, Known(name), {STEP: step, self._metric: mean}) != self._rule.STOP:
            return None
        del self._values[name]
        self._stopped[name] = Stop(self._rule.explain(name, step, mean))
        return self._stopped[name]

    def replay(self, trials: Sequence[tuple[Trial, Curve]]) -> None:
        """Tell the rule what it would know, had it been there from the start.

        Args:
            trials: all of the sweep, with their curves as (step, value) in order of step.
        """
        for trial, curve in trials:
            self.add(trial)
            for step, value in curve:
                self._values[trial.config_hash][step][trial.id] = value
            if trial.state in (TrialState.FAILED, TrialState.CANCELLED):
                self.moved(trial)
        for name, values in self._values.items():
            for step in sorted(values):
                if self._members[name] <= values[step].keys():
                    mean = fmean(values.pop(step).values())
                    self._rule.on_trial_result(None, Known(name), {STEP: step, self._metric: mean})
        for trial, _ in trials:
            self.moved(trial)


def mean_curve(curves: Sequence[Curve]) -> list[tuple[int, float]]:
    """The mean at every step that all curves have."""
    tables = [dict(curve) for curve in curves]
    common = set.intersection(*(set(table) for table in tables)) if tables else set()
    return [(step, fmean(table[step] for table in tables)) for step in sorted(common)]
