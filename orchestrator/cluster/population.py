"""Populations: Ray Tune's PBT and PB2 decide who goes on from whose checkpoint, and with which parameters.

PBT: Jaderberg et al. 2017, arXiv:1711.09846. PB2: Parker-Holder et al. 2020, arXiv:2002.02518, in the unit cube of the
swept ranges. Ray's classes make the decisions on trials that stand for ours; what they decide is recorded in SQL, from
where a resumed driver tells them again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.train import CheckpointConfig
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.schedulers.pb2 import PB2

from orchestrator.cluster.directories import Directories
from orchestrator.cluster.messages import STEP
from orchestrator.cluster.quantities import Quantities
from orchestrator.cluster.seeds import Stop
from orchestrator.errors import BadInput
from orchestrator.lifecycle import TRIAL_ENDS, TrialState
from orchestrator.matching import Sizer
from orchestrator.planning import Configuration, Planner
from orchestrator.ports import TrialStore
from orchestrator.records import Perturbation, Sweep, Trial
from orchestrator.spec.model import SweepSpec
from orchestrator.spec.options import search_options

LOG = logging.getLogger(__name__)
INTERVALS = 10
"""Decisions on a trial over its whole length, where the file does not say."""
NO_CHECKPOINTS = SimpleNamespace(checkpoint_manager=SimpleNamespace(checkpoint_config=CheckpointConfig()))


@dataclass(frozen=True, slots=True)
class Turn:
    """The trial gives its slot up for now. perturbation, configuration: how it goes on, where that changes."""

    reason: str
    perturbation: Perturbation | None = None
    configuration: Configuration | None = None


@dataclass(eq=False, slots=True)
class Member:
    """A trial as Ray's schedulers see it. config: quantities by axis."""

    trial_id: str
    config: dict[str, Any]
    status: str = TuneTrial.PENDING
    experiment_tag: str = ""
    evaluated_params: dict[str, Any] = field(default_factory=dict)
    run_metadata: Any = field(default_factory=lambda: NO_CHECKPOINTS)

    def __str__(self) -> str:
        return self.trial_id

    def is_finished(self) -> bool:
        """It has ended."""
        return self.status == TuneTrial.TERMINATED


@dataclass(frozen=True, slots=True)
class Kept:
    """A donor's checkpoint that outlives its retention."""

    path: Path
    step: int


class _Deciding(PopulationBasedTraining):
    """Says what is to be exploited instead of doing it to Tune's trials."""

    decided: tuple[Member, dict[str, Any]] | None = None

    def _exploit(self, tune_controller: Any, trial: Any, trial_to_clone: Any) -> None:
        changed, _ = self._get_new_config(trial, trial_to_clone)
        self.decided = trial_to_clone, changed
        own, donor = self._trial_state[trial], self._trial_state[trial_to_clone]
        own.last_perturbation_time, own.last_train_time = donor.last_perturbation_time, donor.last_train_time
        self._num_perturbations += 1

    def judge(self, member: Member, step: int, value: float) -> None:
        """What was decided on this report is known; only that it was made counts."""
        state = self._trial_state[member]
        if step >= self._burn_in_period and step - state.last_perturbation_time >= self._perturbation_interval:
            state.last_perturbation_time = step
            self._save_trial_state(state, step, {STEP: step, self._metric: value}, member)


class Pbt(_Deciding):
    """Ray Tune's PopulationBasedTraining."""


class Pb2(_Deciding, PB2):
    """Ray Tune's PB2."""


class Population:
    """Decides on reports of a sweep's trials. To Ray it is the controller of a Tune run with these trials."""

    search_alg = None

    def __init__(
        self,
        sweep: Sweep,
        trials: Sequence[Trial],
        rows: TrialStore,
        directories: Directories,
        sizer: Sizer | None = None,
    ) -> None:
        """sizer: what `match` asks."""
        self._spec = SweepSpec.model_validate(dict(sweep.spec))
        self._metric, self._directories = sweep.metric, directories
        self._planner = Planner(self._spec, sizer)
        self._planner.follow(trials[0].config)
        self._quantities = Quantities(self._planner.axes)
        self._trials = {trial.id: trial for trial in trials}
        self._scheduler = self._made(sweep)
        self._members = {trial.id: Member(str(trial.id), self._config(trial.params)) for trial in trials}
        self._kept: dict[int, Path] = {}
        for trial in trials:
            with _seeded(trial.id):
                self._scheduler.on_trial_add(self, self._members[trial.id])
            self.moved(trial)
            self._replay(trial, rows)

    @property
    def name(self) -> str:
        """Ray's class that decides, for people."""
        return next(each.__name__ for each in type(self._scheduler).__mro__ if each.__module__.startswith("ray."))

    def add(self, trial: Trial) -> None:
        """A population is planned as a whole."""

    def moved(self, trial: Trial) -> None:
        """The trial has another state."""
        running = TuneTrial.RUNNING if trial.state is TrialState.RUNNING else TuneTrial.PENDING
        # Nobody waits for a member that a person paused
        away = trial.state in TRIAL_ENDS or trial.state is TrialState.PAUSED
        self._members[trial.id].status = TuneTrial.TERMINATED if away else running
        self._trials[trial.id] = trial

    def report(self, trial: Trial, step: int, value: float) -> Stop | Turn | None:
        """Whether the trial goes on from another's checkpoint, or lets others catch up."""
        if step >= int(trial.config["training"]["steps"]):
            return None
        member = self._members[trial.id]
        self._scheduler.decided = None
        with _seeded(f"{self._spec.search.seed}/{trial.number}/{trial.attempt}/{step}"):
            verdict = self._scheduler.on_trial_result(self, member, {STEP: step, self._metric: value})
        if self._scheduler.decided is not None:
            return self._exploited(trial, step, *self._scheduler.decided)
        return Turn("others of the population are behind it") if verdict == self._scheduler.PAUSE else None

    def get_trials(self) -> list[Member]:
        """Ray asks its controller."""
        return list(self._members.values())

    def _schedule_trial_save(self, member: Member, result: dict[str, Any]) -> Kept | None:
        """Ray asks its controller for a checkpoint of one of the best: of this report, which waits for a decision."""
        trial = self._trials[int(member.trial_id)]
        path = self._directories.keep(trial, result[STEP])
        if path is None:
            LOG.warning("trial %d has no checkpoint of step %d that others could go on from", trial.id, result[STEP])
            return None
        if (old := self._kept.get(trial.id)) and old != path:
            old.unlink(missing_ok=True)
        self._kept[trial.id] = path
        return Kept(path, result[STEP])

    def _exploited(self, trial: Trial, step: int, member: Member, config: dict[str, Any]) -> Turn:
        donor, kept = self._trials[int(member.trial_id)], self._scheduler._trial_state[member].last_checkpoint
        found = self._configuration(config)
        if found is None:
            # What was explored is no valid configuration: it is exploited as it is
            config, found = member.config, Configuration(dict(donor.config), trial.config_hash, dict(donor.params))
        self._members[trial.id].config = dict(config)
        names = sorted({**trial.params, **found.params})
        changed = {name: (trial.params.get(name), found.params.get(name)) for name in names}
        perturbation = Perturbation(
            attempt=trial.attempt + 1,
            step=step,
            parent_trial_id=donor.id,
            parent_step=kept.step,
            changed={name: pair for name, pair in changed.items() if pair[0] != pair[1]},
        )
        self._directories.lend(kept.path, trial, perturbation)
        told = ", ".join(f"{name} {before} -> {after}" for name, (before, after) in perturbation.changed.items())
        reason = f"goes on from trial {donor.id} at step {kept.step} with {told or 'its own parameters'}"
        return Turn(f"{self.name}: {reason}", perturbation, found)

    def _configuration(self, config: dict[str, Any]) -> Configuration | None:
        try:
            return self._planner.configuration(self._quantities.values(self._outward(config)))
        except BadInput as error:
            LOG.info("not explored: %s", error)
            return None

    def _made(self, sweep: Sweep) -> _Deciding:
        given = search_options(self._spec.search.method, self._spec.search.options)
        longest = max(int(trial.config["training"]["steps"]) for trial in self._trials.values())
        words: dict[str, Any] = {
            "time_attr": STEP,
            "metric": sweep.metric,
            "mode": "min" if sweep.goal == "minimize" else "max",
            "log_config": False,
            "perturbation_interval": max(1, longest // INTERVALS),
        } | {name: value for name, value in given.items() if not name.startswith("hyperparam_")}
        axes = [name for name, axis in self._quantities.axes.items() if set(axis.names) <= set(self._spec.mutated)]
        if self._spec.search.method == "pb2":
            return Pb2(hyperparam_bounds={name: [0.0, 1.0] for name in axes}, **words)
        return Pbt(
            hyperparam_mutations={name: self._choices(name) for name in axes},
            custom_explore_fn=lambda config: {name: self._quantities.inside(name, config[name]) for name in config},
            **words,
        )

    def _choices(self, name: str) -> Any:
        axis = self._quantities.axes[name]
        if axis.range is None:
            return list(range(len(axis.rows)))
        return lambda: self._quantities.at(name, random.random())

    def _config(self, params: Any) -> dict[str, Any]:
        """A member's configuration as Ray sees it. An axis that does not apply to it has a value all the same."""
        found = self._quantities.of(params)
        complete = {name: found.get(name, self._quantities.at(name, 0.5)) for name in self._quantities.axes}
        return self._inward(complete)

    def _inward(self, quantities: dict[str, Any]) -> dict[str, Any]:
        """PB2 looks at the place in a range, since it knows no logarithms."""
        if self._spec.search.method != "pb2":
            return quantities
        ranges = {name for name, axis in self._quantities.axes.items() if axis.range is not None}
        return {
            name: self._quantities.quantile(name, each) if name in ranges else each for name, each in quantities.items()
        }

    def _outward(self, config: dict[str, Any]) -> dict[str, Any]:
        if self._spec.search.method != "pb2":
            return config
        ranges = {name for name, axis in self._quantities.axes.items() if axis.range is not None}
        return {name: self._quantities.at(name, each) if name in ranges else each for name, each in config.items()}

    def _replay(self, trial: Trial, rows: TrialStore) -> None:
        """Tell Ray what it judged of a trial: under each of its configurations, the reports of those attempts."""
        member, state = self._members[trial.id], self._scheduler._trial_state[self._members[trial.id]]
        starts = [0, *(each.attempt for each in trial.perturbations)]
        params = _params_over_time(trial)
        for index, start in enumerate(starts):
            stop = starts[index + 1] if index + 1 < len(starts) else trial.attempt + 1
            member.config = self._config(params[index])
            if index:
                state.last_perturbation_time = state.last_train_time = trial.perturbations[index - 1].parent_step
            for step, value in rows.curve(trial.id, self._metric, attempts=range(start, stop)):
                self._scheduler.judge(member, step, value)
        kept = self._directories.kept(trial, state.last_train_time)
        state.last_checkpoint = Kept(kept, state.last_train_time) if kept else None


def _params_over_time(trial: Trial) -> list[dict[str, Any]]:
    """Parameters before the first perturbation, after it, and so on."""
    found = [dict(trial.params)]
    for each in reversed(trial.perturbations):
        before = found[0] | {name: pair[0] for name, pair in each.changed.items()}
        found.insert(0, {name: value for name, value in before.items() if value is not None})
    return found


@contextmanager
def _seeded(text: object) -> Iterator[None]:
    """Ray draws from the global generators: a decision hangs on what was reported, not on what was drawn before."""
    python, numpy = random.getstate(), np.random.get_state()
    seed = random.Random(str(text)).getrandbits(32)
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
