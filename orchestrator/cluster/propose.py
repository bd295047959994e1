"""Searchers that learn: Optuna's samplers propose configurations, SQL keeps them, and results are told back.

A study is not stored anywhere: it is built anew from SQL whenever a driver starts, by telling the sampler every
configuration that was tried before, in order.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, TPESampler
from optuna.trial import TrialState as Told

from orchestrator.lifecycle import TRIAL_ENDS, TrialState
from orchestrator.planning import Configuration, Planner, as_scalar
from orchestrator.ports import Clock, TrialStore
from orchestrator.records import Sweep, Trial
from orchestrator.spec.model import LEARNING, SweepSpec
from orchestrator.spec.space import Axis, Values, value_at

LOG = logging.getLogger(__name__)
MOST_REPEATS = 100
"""Proposals in a row that a constraint refuses or that were tried before, after which the space counts as used up."""


class Learner:
    """Proposes what a sweep tries next, from what it has tried."""

    def __init__(self, sweep: Sweep, rows: TrialStore, clock: Clock) -> None:
        self._sweep, self._rows, self._clock = sweep, rows, clock
        self._spec = SweepSpec.model_validate(dict(sweep.spec))
        self._planner = Planner(self._spec)
        self._axes = {".".join(axis.names): axis for axis in self._planner.axes}
        self._distributions = {name: distribution_of(axis) for name, axis in self._axes.items()}
        direction = "minimize" if sweep.goal == "minimize" else "maximize"
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(direction=direction, sampler=sampler_of(self._spec))
        self._asked: dict[str, optuna.Trial] = {}
        self._groups: dict[str, list[int]] = {}
        self._number = 0
        self._used_up = False
        for trial in rows.trials(sweep.id):
            self._group(trial)
        self._replay()

    @property
    def left(self) -> int:
        """Trials that may still be proposed."""
        budget = (self._spec.search.max_trials or 0) - self._number
        return 0 if self._used_up else budget // len(self._spec.seeds.numbers) * len(self._spec.seeds.numbers)

    def propose(self) -> list[Trial]:
        """One more configuration with every seed, recorded; nothing when the budget or the space is used up."""
        if self.left <= 0:
            return []
        for _ in range(MOST_REPEATS):
            asked = self._study.ask(self._distributions)
            found = self._planner.configuration(self._values(asked))
            if found is None or found.config_hash in self._groups:
                self._refuse(asked, found)
                continue
            self._asked[found.config_hash] = asked
            planned = self._planner.trials(found, self._number)
            made = self._rows.add_trials(self._sweep.id, planned, now=self._clock.now())
            for trial in made:
                self._group(trial)
            return made
        self._used_up = True
        LOG.info("the space has nothing new: %d proposals in a row were tried before", MOST_REPEATS)
        return []

    def finished(self, trial: Trial) -> None:
        """A trial has ended; the sampler learns of its configuration once all its seeds have."""
        asked = self._asked.get(trial.config_hash)
        group = [self._rows.trial(trial_id) for trial_id in self._groups[trial.config_hash]]
        if asked is None or any(each.state not in TRIAL_ENDS for each in group):
            return
        value = self._value(group)
        self._study.tell(asked, value, state=Told.COMPLETE if value is not None else Told.FAIL)
        del self._asked[trial.config_hash]

    def _group(self, trial: Trial) -> None:
        self._groups.setdefault(trial.config_hash, []).append(trial.id)
        self._number = max(self._number, trial.number + 1)

    def _refuse(self, asked: optuna.Trial, found: Configuration | None) -> None:
        value = None
        if found is not None:
            # Tried before: its value is known, and told again it moves the sampler on.
            value = self._value([self._rows.trial(trial_id) for trial_id in self._groups[found.config_hash]])
        self._study.tell(asked, value, state=Told.COMPLETE if value is not None else Told.FAIL)

    def _value(self, group: Sequence[Trial]) -> float | None:
        """Mean of the metric over the seeds that have a result."""
        good = (TrialState.SUCCEEDED, TrialState.STOPPED)
        values = [each.score for each in group if each.state in good and each.score is not None]
        return fmean(values) if values else None

    def _replay(self) -> None:
        for trial_ids in self._groups.values():
            group = [self._rows.trial(trial_id) for trial_id in trial_ids]
            quantities = self._quantities(group[0].params)
            distributions = {name: self._distributions[name] for name in quantities}
            value = self._value(group)
            ended = all(each.state in TRIAL_ENDS for each in group)
            if ended:
                state = Told.COMPLETE if value is not None else Told.FAIL
                told = optuna.trial.create_trial(
                    params=quantities, distributions=distributions, value=value, state=state
                )
                self._study.add_trial(told)
            else:
                self._study.enqueue_trial(quantities)
                self._asked[group[0].config_hash] = self._study.ask(self._distributions)

    def _values(self, asked: optuna.Trial) -> Values:
        values: Values = {}
        for name, axis in self._axes.items():
            quantity = asked.params[name]
            values |= axis.rows[int(quantity)] if axis.range is None else {axis.names[0]: self._of(axis, quantity)}
        return values

    def _of(self, axis: Axis, quantity: Any) -> Any:
        assert axis.range is not None
        return value_at(axis.range, float(quantity)) if _by_quantile(axis) else quantity

    def _quantities(self, params: Any) -> dict[str, Any]:
        """What the sampler would have proposed for recorded values; axes that did not apply are left out."""
        found: dict[str, Any] = {}
        for name, axis in self._axes.items():
            if axis.range is not None:
                if axis.names[0] in params and not _by_quantile(axis):
                    found[name] = params[axis.names[0]]
                continue
            for index, row in enumerate(axis.rows):
                if all(params.get(key) == as_scalar(value) for key, value in row.items()):
                    found[name] = index
                    break
        return found


def learner_of(sweep: Sweep, rows: TrialStore, clock: Clock) -> Learner | None:
    """The learner of a sweep whose method learns; None for one whose trials were all planned."""
    return Learner(sweep, rows, clock) if sweep.spec["search"]["method"] in LEARNING else None


def sampler_of(spec: SweepSpec) -> BaseSampler:
    """Optuna's sampler for a method."""
    seed, planned = spec.search.seed, spec.search.startup
    match spec.search.method:
        case "tpe":
            return TPESampler(seed=seed, n_startup_trials=planned, multivariate=True, group=True, constant_liar=True)
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=planned, deterministic_objective=False)
        case "cmaes":
            return CmaEsSampler(seed=seed, n_startup_trials=planned)
    raise AssertionError(f"{spec.search.method} proposes nothing")


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


def _by_quantile(axis: Axis) -> bool:
    return axis.range is not None and axis.range.kind in ("normal", "q_normal", "q_log_uniform_values")
