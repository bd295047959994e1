"""What a sweep gives Tune to decide with: the trials to run, and when to stop one early.

Searchers that propose configurations go here: they add rows through `TrialStore.add_trials`, and `SqlTrials` hands
them out like planned ones.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule
from ray.tune.search.search_algorithm import SearchAlgorithm

from orchestrator.cluster.hyperband import Hyperband, hyperband
from orchestrator.cluster.messages import STEP
from orchestrator.cluster.seeds import Known, Rule
from orchestrator.lifecycle import TrialState
from orchestrator.records import Sweep, Trial
from orchestrator.spec.model import EarlyTerminate
from orchestrator.spec.options import stopping_options

LOG = logging.getLogger(__name__)


class Proposals(Protocol):
    """A searcher that learns: see `cluster.propose`."""

    @property
    def left(self) -> int:
        """Trials that may still be proposed."""

    def propose(self) -> list[Trial]:
        """New rows to run; none when nothing is left."""

    def finished(self, trial: Trial) -> None:
        """A trial has ended."""


class SqlTrials(SearchAlgorithm):
    """Hands out rows of `trial` as Tune trials of the same number, never more at a time than there is room for.

    Tune's own grid search over row numbers would do for planned trials, but fixes the concurrency at the start and
    gives each trial a new name at every restart, under which a scheduler does not know it again.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        *,
        room: Callable[[], int],
        halted: Callable[[], bool],
        config_of: Callable[[Trial], dict[str, Any]],
        proposals: Proposals | None = None,
        added: Callable[[Trial], None] = lambda _: None,
        exhausted: Callable[[], str] = str,
        waiting: Callable[[bool], frozenset[int]] | None = None,
        take_up: Callable[[int], Trial] | None = None,
    ) -> None:
        """room: how many trials may run at once, now. halted: no more of them. config_of: what the trainable gets.

        exhausted: why no further trial may start; "" while one may.

        proposals: where trials come from once those that were planned are handed out. added: is told of each.

        waiting: what the record says waits, which people change; asked with True, as it is at this moment.
        take_up: a trial that they moved, as it is now.
        """
        self._waiting = deque(trials)
        self._running: dict[str, Trial] = {}
        self._turns: Counter[int] = Counter()
        self._proposals, self._added = proposals, added
        self._room, self._halted, self._config_of, self._exhausted = room, halted, config_of, exhausted
        self._on_record, self._take_up = waiting, take_up
        self._seen: frozenset[int] | None = None
        self._spec: dict[str, Any] = {}

    @property
    def unfinished(self) -> int:
        """Trials that wait or run, or may yet be proposed."""
        if self._exhausted():
            return len(self._running)
        return len(self._waiting) + len(self._running) + (self._proposals.left if self._proposals else 0)

    @property
    def total_samples(self) -> int:
        """Tune's progress display asks."""
        return self.unfinished

    def add_configurations(self, experiments: Any) -> None:
        """Tune says how its trials are to be made."""
        self._spec = experiments[0].spec

    def next_trial(self) -> TuneTrial | None:
        """A trial to start now, or None."""
        self._follow_people()
        if self.is_finished() or len(self._running) >= self._room():
            return None
        if not self._waiting and self._proposals:
            proposed = self._proposals.propose()
            for trial in proposed:
                self._added(trial)
            self._waiting.extend(proposed)
        if not self._waiting:
            return None
        trial = self._waiting.popleft()
        self._turns[trial.id] += 1
        # To Tune, a trial that gave its slot up has ended, and comes again as another
        name = f"{trial.id}.{self._turns[trial.id]}"
        self._running[name] = trial
        return TuneTrial(
            self._spec["run"],
            config=self._config_of(trial),
            trial_id=name,
            experiment_tag=str(trial.number),
            placement_group_factory=self._spec["resources_per_trial"],
            storage=self._spec["storage"],
            # A trainable only waits: if its process dies, it is started again. Failures of trials are counted in SQL
            max_failures=-1,
        )

    def put_back(self, trial: Trial) -> None:
        """It gave its slot up, and waits behind the others for its next turn."""
        self._waiting.append(trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial has ended, one way or the other."""
        trial = self._running.pop(trial_id, None)
        if trial is not None and self._proposals:
            self._proposals.finished(trial)

    def is_finished(self) -> bool:
        """Whether nothing more will be handed out."""
        # The last look is a fresh one: what people put back while the last trial ended is still this driver's
        self._follow_people(anew=not self._waiting and not self._running)
        nothing_left = not self._waiting and not (self._proposals and self._proposals.left)
        return bool(self._finished) or nothing_left or self._halted() or bool(self._exhausted())

    def _follow_people(self, anew: bool = False) -> None:
        """What they paused or cancelled leaves the queue, and what they put back comes into it."""
        if self._on_record is None or self._take_up is None:
            return
        waiting = self._on_record(anew)
        if waiting is self._seen:
            return
        self._seen = waiting
        # What was looked up a moment ago may be of before this queue's own last moves: who differs is asked for anew
        for trial in [trial for trial in self._waiting if trial.id not in waiting]:
            if self._take_up(trial.id).state is not TrialState.PENDING:
                self._waiting.remove(trial)
        known = {trial.id for trial in (*self._waiting, *self._running.values())}
        put_back = [self._take_up(trial_id) for trial_id in sorted(waiting - known)]
        self._waiting.extend(trial for trial in put_back if trial.state is TrialState.PENDING)


class RunAll(FIFOScheduler):
    """Stops nothing."""

    def explain(self, trial_id: str, step: int, value: float) -> str:
        """Never asked."""
        return f"stopped at step {step}"


class Asha(AsyncHyperBandScheduler):
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934), Tune's, with reasons."""

    def explain(self, trial_id: str, step: int, value: float) -> str:
        """Names the rung and how many results stood there."""
        bracket = self._brackets[0]
        for milestone, recorded in bracket._rungs:
            if milestone <= step and trial_id in recorded:
                return (
                    f"stopped by ASHA at step {step}: {self._metric} {value:.4g} is not in the best "
                    f"1/{bracket.rf:g} of the {len(recorded)} trials that came to step {milestone:g}"
                )
        return f"stopped by ASHA at step {step}, its max_steps"


class Median(MedianStoppingRule):
    """Median stopping (Golovin et al. 2017, Vizier), Tune's, with reasons.

    A trial ends when its best value so far is worse than the median of the other trials' running means.
    """

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Tune will run it, or it is known from before."""
        super().on_trial_add(tune_controller, Known(trial.trial_id))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Trials are told apart by name: Tune's own objects differ from one driver to the next."""
        known = Known(trial.trial_id)
        # Told its curve again after others', a trial may rank lower than it did; it was not stopped for that
        self._stopped_trials.discard(known)
        return str(super().on_trial_result(tune_controller, known, result))

    def explain(self, trial_id: str, step: int, value: float) -> str:
        """Says by which rule."""
        return (
            f"stopped by the median rule at step {step}: {self._metric}, at best so far, is worse than the median of "
            f"the running means of {len(self._results) - 1} other trials"
        )

    def _on_insufficient_samples(self, tune_controller: Any, trial: Any, time: float) -> str:
        # Tune would pause the trial to let others catch up; a warm group has nothing better to do than to go on.
        return str(self.CONTINUE)


def early_stopping(sweep: Sweep, trials: Sequence[Trial]) -> Asha | Hyperband | Median | RunAll:
    """The scheduler that `early_terminate` of the sweep's spec asks for."""
    words = sweep.spec.get("early_terminate")
    if not words or words["type"] == "none":
        return RunAll()
    rule = EarlyTerminate.model_validate(words)
    longest = max(steps_of(trial) for trial in trials)
    if rule.grace_steps >= longest:
        LOG.warning(
            "grace_steps %s is no less than the %s steps of a trial: none is stopped", rule.grace_steps, longest
        )
        return RunAll()
    if rule.type == "hyperband":
        return hyperband(rule, name=sweep.name, metric=sweep.metric, goal=sweep.goal, max_steps=longest)
    mode = "min" if sweep.goal == "minimize" else "max"
    if rule.type == "median":
        given = stopping_options("median", rule.options)
        return Median(time_attr=STEP, metric=sweep.metric, mode=mode, grace_period=rule.grace_steps, **given)
    return Asha(
        time_attr=STEP,
        metric=sweep.metric,
        mode=mode,
        grace_period=rule.grace_steps,
        reduction_factor=rule.reduction_factor,
        max_t=longest,
    )


def decider(rule: Rule) -> str:
    """Ray's or Optuna's class that decides for a rule, for people: ours add reasons and memory to it."""
    decides = rule.pruner if isinstance(rule, Hyperband) else rule
    libraries = ("ray", "optuna")
    return next(each.__name__ for each in type(decides).__mro__ if each.__module__.partition(".")[0] in libraries)


def row_id(trial_id: str) -> int:
    """The row of a Tune trial: what stands before the number of its turn."""
    return int(trial_id.partition(".")[0])


def steps_of(trial: Trial) -> int:
    """Steps of the whole trial."""
    return int(trial.config["training"]["steps"])
