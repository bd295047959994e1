"""Searchers that learn: Optuna's samplers propose configurations, SQL keeps them, and results are told back.

A study is not stored anywhere: it is built anew from SQL whenever a driver starts, by telling the sampler every
configuration that was tried before, in order.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from statistics import fmean

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseGASampler, BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState as Told

from orchestrator.aggregate import Aggregate
from orchestrator.cluster.hyperband import Brackets, Hyperband
from orchestrator.cluster.quantities import Quantities
from orchestrator.cluster.seeds import mean_curve
from orchestrator.lifecycle import TRIAL_ENDS, TrialState
from orchestrator.matching import Sizer
from orchestrator.planning import Configuration, Planner
from orchestrator.ports import Clock, TrialStore
from orchestrator.records import Sweep, Trial
from orchestrator.spec.model import LEARNING, Metric, SweepSpec
from orchestrator.spec.options import search_options

LOG = logging.getLogger(__name__)
MOST_REPEATS = 100
"""Proposals in a row that a constraint refuses or that were tried before, after which the space counts as used up."""


class Learner:
    """Proposes what a sweep tries next, from what it has tried."""

    def __init__(self, sweep: Sweep, rows: TrialStore, clock: Clock, sizer: Sizer | None = None) -> None:
        """sizer: what `match` asks."""
        self._sweep, self._rows, self._clock = sweep, rows, clock
        self._spec = SweepSpec.model_validate(dict(sweep.spec))
        self._planner = Planner(self._spec, sizer)
        self._quantities = Quantities(self._planner.axes)
        self._metrics = metrics_of(self._spec, sweep)
        self._groups: dict[str, list[int]] = {}
        self._asked: dict[str, optuna.Trial] = {}
        self._places: dict[int, int] = {}
        self._number = 0
        self._used_up = False
        trials = rows.trials(sweep.id)
        for trial in trials:
            self._group(trial)
        self._planner.follow(trials[0].config)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            study_name=sweep.name,
            directions=[metric.goal for metric in self._metrics],
            # A driver that takes over must not draw the same numbers again
            sampler=sampler_of(self._spec, random.Random(f"{self._spec.search.seed}/{len(trials)}").getrandbits(32)),
            pruner=self._pruner(trials),
        )
        LOG.info("%s proposes for %s", type(self._study.sampler).__name__, ", ".join(m.name for m in self._metrics))
        self._replay()

    @property
    def left(self) -> int:
        """Trials that may still be proposed."""
        budget = (self._spec.search.max_trials or 0) - self._number
        return 0 if self._used_up else budget // len(self._spec.seeds.numbers) * len(self._spec.seeds.numbers)

    @property
    def searcher(self) -> str:
        """Class of the searcher, for people."""
        return type(self._study.sampler).__name__

    @property
    def stopping(self) -> Hyperband | None:
        """The rule of early stopping that belongs to the method: it and the sampler see the same study."""
        pruner = self._study.pruner
        if not isinstance(pruner, Brackets):
            return None
        return Hyperband(self._study, pruner, metric=self._metrics[0].name, known=self._asked)

    def propose(self) -> list[Trial]:
        """One more configuration with every seed, recorded; nothing when the budget or the space is used up."""
        if self.left <= 0:
            return []
        for _ in range(MOST_REPEATS):
            asked = self._study.ask(self._quantities.distributions)
            self._places[asked.number] = len(self._groups)
            found = self._planner.configuration(self._quantities.values(asked.params))
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
        self._tell(asked, group)
        del self._asked[trial.config_hash]

    def _group(self, trial: Trial) -> None:
        self._groups.setdefault(trial.config_hash, []).append(trial.id)
        self._number = max(self._number, trial.number + 1)

    def _pruner(self, trials: Sequence[Trial]) -> BasePruner:
        if self._spec.search.method != "bohb" or self._spec.early_terminate is None:
            return NopPruner()
        steps = max((int(trial.config["training"]["steps"]) for trial in trials), default=1)
        return Brackets(self._spec.early_terminate, max_steps=steps, place=self._place)

    def _place(self, number: int) -> int:
        """Place of a study's trial among the configurations: refused proposals have numbers in the study, too."""
        return self._places.get(number, len(self._groups))

    def _refuse(self, asked: optuna.Trial, found: Configuration | None) -> None:
        if found is None:
            self._study.tell(asked, state=Told.FAIL)
        else:
            # Tried before: its value is known, and told again it moves the sampler on.
            self._tell(asked, [self._rows.trial(trial_id) for trial_id in self._groups[found.config_hash]])

    def _tell(self, asked: optuna.Trial, group: Sequence[Trial]) -> None:
        values = self._values(group)
        stopped = all(each.state is TrialState.STOPPED for each in group)
        if values is None:
            self._study.tell(asked, state=Told.FAIL)
        elif stopped and isinstance(self._study.pruner, Brackets):
            # BOHB models the configurations that came furthest: the sampler looks at how far, and then at the value
            self._study.tell(asked, state=Told.PRUNED)
        else:
            self._study.tell(asked, values)

    def _values(self, group: Sequence[Trial]) -> list[float] | None:
        """Mean of each metric over the seeds that have a result; None where one has none."""
        good = (TrialState.SUCCEEDED, TrialState.STOPPED)
        ended = [each for each in group if each.state in good and each.score is not None]
        columns = [[each.score for each in ended if each.score is not None]]
        for metric in self._metrics[1:]:
            columns.append([each.metrics[metric.name] for each in ended if metric.name in each.metrics])
        return [fmean(column) for column in columns] if all(columns) else None

    def _replay(self) -> None:
        for place, (config_hash, trial_ids) in enumerate(self._groups.items()):
            group = [self._rows.trial(trial_id) for trial_id in trial_ids]
            quantities = self._quantities.of(group[0].params)
            self._study.enqueue_trial(quantities)
            asked = self._study.ask({name: self._quantities.distributions[name] for name in quantities})
            self._places[asked.number] = place
            if isinstance(self._study.sampler, BaseGASampler):
                # It numbers the generations of what it proposes itself, and passes over what has no number
                self._study.sampler.get_trial_generation(self._study, self._study.trials[asked.number])
            if any(each.state not in TRIAL_ENDS for each in group):
                self._asked[config_hash] = asked
                continue
            if isinstance(self._study.pruner, Brackets):
                worth = Aggregate.of(self._sweep.spec, self._sweep.goal)
                curves = [worth.running(self._rows.curve(each, self._metrics[0].name)) for each in trial_ids]
                for step, value in mean_curve(curves):
                    asked.report(value, step)
                    asked.should_prune()
            self._tell(asked, group)


def learner_of(sweep: Sweep, rows: TrialStore, clock: Clock, sizer: Sizer | None) -> Learner | None:
    """The learner of a sweep whose method learns; None for one whose trials were all planned."""
    return Learner(sweep, rows, clock, sizer) if sweep.spec["search"]["method"] in LEARNING else None


def metrics_of(spec: SweepSpec, sweep: Sweep) -> list[Metric]:
    """What is searched for: all metrics where the method weighs several, else the one that ranks."""
    if spec.search.method == "nsga2":
        return spec.metrics
    return [Metric.model_validate({"name": sweep.metric, "goal": sweep.goal})]


def sampler_of(spec: SweepSpec, seed: int) -> BaseSampler:
    """Optuna's sampler for a method.

    bohb: TPE on Optuna's Hyperband pruner, which shows it the trials of one bracket. It is BOHB's construction (Falkner
    et al. 2018, arXiv:1807.01774, section 4); Ray Tune's TuneBOHB needs hpbandster, which no longer installs.
    """
    startup, given = spec.search.startup, search_options(spec.search.method, spec.search.options)
    match spec.search.method:
        case "tpe" | "bohb":
            defaults = {"multivariate": True, "group": True, "constant_liar": True}
            return TPESampler(seed=seed, n_startup_trials=startup, **defaults | given)
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=startup, **given)
        case "cmaes":
            return CmaEsSampler(seed=seed, n_startup_trials=startup, **given)
        case "nsga2":
            return NSGAIISampler(seed=seed, **{"population_size": max(2, startup)} | given)
    raise AssertionError(f"{spec.search.method} proposes nothing")
