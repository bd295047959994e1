"""The one writer of trials. What Tune's scheduler decides on has been committed to SQL before it sees it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler

from orchestrator.aggregate import Aggregate
from orchestrator.cluster.guards import Limits, StopIf
from orchestrator.cluster.logpolicies import LEFT, Finding, LogPolicies
from orchestrator.cluster.messages import Ended, Outcome, Reported, Started
from orchestrator.cluster.people import People
from orchestrator.cluster.population import Population, Turn
from orchestrator.cluster.search import row_id, steps_of
from orchestrator.cluster.seeds import SeedGroups
from orchestrator.cluster.trainable import HAPPENING
from orchestrator.errors import IllegalMove
from orchestrator.identity import identity_of
from orchestrator.lifecycle import WISHED, TrialState
from orchestrator.ports import Clock, TrialStore
from orchestrator.records import DATA_CHECKSUM, Facts, Healthy, Report, Sweep, Trial
from orchestrator.spec.condition import stored
from orchestrator.spec.model import POPULATION

LOG = logging.getLogger(__name__)
LOSSES_WITHOUT_PROGRESS = 5
SIZE_COLUMNS = ("params", "active_params", "train_flops_per_token")


class Recorder:
    """Moves trials and writes their reports, as things happen."""

    def __init__(
        self,
        store: TrialStore,
        sweep: Sweep,
        trials: Sequence[Trial],
        clock: Clock,
        limits: Limits,
        policies: LogPolicies,
        leave: Callable[[str], bool],
    ) -> None:
        """limits: is told when trials take and leave their places.

        leave: keeps the sweep off the node of this id; False where there would be no other.
        """
        self._store, self._sweep, self._clock, self._limits = store, sweep, clock, limits
        self._policies, self._leave = policies, leave
        self._aggregate = Aggregate.of(sweep.spec, sweep.goal)
        self._trials = {trial.id: trial for trial in trials}
        self._losses: dict[int, int] = {}
        self._identified: set[int] = set()
        self._nodes: dict[int, frozenset[str]] = {}

    def trial(self, trial_id: int) -> Trial:
        """As last written."""
        return self._trials[trial_id]

    def take_up(self, trial_id: int) -> Trial:
        """A person moved it: as it is now."""
        trial = self._trials[trial_id] = self._store.trial(trial_id)
        self._losses.pop(trial_id, None)
        return trial

    def started(self, trial_id: int, started: Started) -> bool:
        """A slot was leased to it. Whether it starts: meanwhile a person may have taken it out of the queue."""
        try:
            trial = self._trials[trial_id] = self._store.start_trial(trial_id, now=self._clock.now())
        except IllegalMove as refusal:
            self._trials[trial_id] = self._store.trial(trial_id)
            LOG.info("trial %d is not started: %s", trial_id, refusal)
            return False
        self._nodes[trial_id] = frozenset(started.nodes)
        self._identified.discard(trial_id)
        self._limits.started(trial_id)
        self._policies.started(trial, started.nodes)
        LOG.info("trial %d starts, attempt %d, on %s", trial_id, trial.attempt, started.where)
        return True

    def nodes(self, trial_id: int) -> frozenset[str]:
        """Ids of the nodes of its workers."""
        return self._nodes.get(trial_id, frozenset())

    def reported(self, trial_id: int, reported: Reported) -> None:
        """A row of its curve."""
        self._losses.pop(trial_id, None)
        facts: Facts = {**self._size(trial_id, reported), **self._identification(trial_id, reported)}
        if reported.checkpoint:
            facts["checkpoint_path"] = reported.checkpoint
        report = Report(
            trial_id=trial_id,
            attempt=self._trials[trial_id].attempt,
            step=reported.step,
            metrics=stored(reported.metrics),
            at=self._clock.now(),
        )
        self._store.record([report], facts={trial_id: facts} if facts else None)

    def worth(self, trial_id: int, step: int, value: float) -> float:
        """What a trial's curve is worth up to the report that was recorded last."""
        if self._aggregate.how == "last":
            return value
        curve = self._store.curve(trial_id, self._sweep.metric)
        return self._aggregate.value([each for at, each in curve if at <= step])

    def _size(self, trial_id: int, reported: Reported) -> Facts:
        """A trial's size comes with its rows; it is written once."""
        found = [reported.metrics.get(name) for name in SIZE_COLUMNS]
        if self._trials[trial_id].params_count is not None or None in found:
            return {}
        params, active, flops = (float(value) for value in found if value is not None)
        self._trials[trial_id] = replace(self._trials[trial_id], params_count=int(params))
        return {"params_count": int(params), "active_params": int(active), "flops_per_token": flops}

    def _identification(self, trial_id: int, reported: Reported) -> Facts:
        """At the first report of an attempt; a trial that other code or data began is a mixture, which is nothing."""
        trial = self._trials[trial_id]
        if trial_id in self._identified or not reported.code or DATA_CHECKSUM not in reported.metrics:
            return {}
        self._identified.add(trial_id)
        identity = self._identity(trial, reported)
        if trial.step and trial.identity != identity:
            identity = None
        return {"identity": identity} if trial.identity != identity else {}

    def _identity(self, trial: Trial, reported: Reported) -> str | None:
        if self._sweep.spec.get("search", {}).get("method") in POPULATION:
            return None
        parent = None
        if trial.parent_trial_id is not None and trial.parent_step is not None:
            origin = self._store.trial(trial.parent_trial_id).identity
            if origin is None:
                return None
            parent = (origin, trial.parent_step)
        checksum = int(reported.metrics[DATA_CHECKSUM])
        return identity_of(trial.config_hash, trial.seed, code=reported.code, data_checksum=checksum, parent=parent)

    def ended(
        self,
        trial_id: int,
        state: TrialState,
        reason: str,
        checkpoint: str | None = None,
        *,
        own: bool = False,
        healthy: Healthy | None = None,
    ) -> None:
        """An end, or PENDING for another attempt."""
        self._trials[trial_id] = self._store.end_trial(
            trial_id,
            state,
            reason=reason,
            now=self._clock.now(),
            checkpoint_path=checkpoint,
            own_failure=own,
            healthy=healthy,
            attempt=self._trials[trial_id].attempt,
        )
        self._limits.left(trial_id)
        LOG.info("trial %d is %s%s", trial_id, state, f": {reason}" if reason else "")

    def turned(self, trial_id: int, turn: Turn) -> None:
        """It gives up its slot and waits again, perhaps to go on as another."""
        if turn.perturbation is None or turn.configuration is None:
            self.ended(trial_id, TrialState.PENDING, turn.reason)
            return
        self._trials[trial_id] = self._store.perturb_trial(
            trial_id,
            turn.perturbation,
            config=turn.configuration.config,
            params=turn.configuration.params,
            reason=turn.reason,
            now=self._clock.now(),
        )
        self._limits.left(trial_id)
        LOG.info("trial %d %s", trial_id, turn.reason)

    def failed(self, trial_id: int, ended: Ended) -> bool:
        """It ended badly. Returns whether it gets another attempt."""
        trial = self._trials[trial_id]
        finding = self._policies.find(trial, ended.reason)
        if finding is not None and (again := self._by_policy(trial_id, ended, finding)) is not None:
            return again
        if ended.outcome is Outcome.LOST:
            losses = self._losses[trial_id] = self._losses.get(trial_id, 0) + 1
            again = losses < LOSSES_WITHOUT_PROGRESS
            reason = ended.reason if again else f"{ended.reason}, {losses} times without a report in between"
            self.ended(trial_id, TrialState.PENDING if again else TrialState.FAILED, reason, ended.checkpoint)
            return again
        tries = int(self._sweep.spec.get("retries", 0))
        again = ended.outcome is Outcome.FAILED and trial.failures < tries
        self.ended(
            trial_id, TrialState.PENDING if again else TrialState.FAILED, ended.reason, ended.checkpoint, own=True
        )
        return again

    def _by_policy(self, trial_id: int, ended: Ended, finding: Finding) -> bool | None:
        """Whether it gets another attempt; None where the policy changes nothing."""
        why = f"its log matches {finding.pattern!r}"
        if finding.action == "no_retry":
            reason = f"{ended.reason}; not tried again: {why}"
            own = ended.outcome is not Outcome.LOST
            self.ended(trial_id, TrialState.FAILED, reason, ended.checkpoint, own=own)
            return False
        if ended.outcome is Outcome.HOPELESS or not finding.node or not self._leave(finding.node):
            return None
        self._store.note(trial_id, f"{LEFT}{finding.node}", reason=why, now=self._clock.now())
        reason = f"{ended.reason}; the sweep leaves node {finding.node[:12]}: {why}"
        self.ended(trial_id, TrialState.PENDING, reason, ended.checkpoint)
        return True


class RecordingScheduler(FIFOScheduler):
    """Stands between Tune and the rule: records first, then asks; knows ends and failures, which Tune does not."""

    def __init__(
        self,
        rule: SeedGroups | Population,
        recorder: Recorder,
        sweep: Sweep,
        *,
        free_slot: Callable[[int], None],
        stop_if: StopIf,
        limits: Limits,
        again: Callable[[Trial], None] = lambda _: None,
        people: People | None = None,
    ) -> None:
        """free_slot: tells the mailbox that a trial needs its slot no longer. again: gets a trial that waits anew."""
        super().__init__()
        self._rule, self._recorder, self._sweep = rule, recorder, sweep
        self._stop_if, self._limits = stop_if, limits
        self._free_slot, self._again, self._people = free_slot, again, people

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Of those that the queue handed out, the first that waits. Tune's way is to look through all that ever ran."""
        waits = (TuneTrial.PENDING, TuneTrial.PAUSED)
        live = [trial for trial in tune_controller.get_live_trials() if trial.status in waits]
        return min(live, key=lambda trial: row_id(trial.trial_id), default=None)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """The rule was made with them."""
        return True

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Record what happened; CONTINUE means train on after a report, try again after a failure."""
        trial_id, happening = row_id(trial.trial_id), result[HAPPENING]
        match happening:
            case Started():
                starts = self._recorder.started(trial_id, happening)
                self._rule.moved(self._recorder.trial(trial_id))
                return str(self.CONTINUE if starts else self.STOP)
            case Reported():
                return self._on_report(trial_id, happening)
            case Ended(outcome=Outcome.DONE):
                return self._end(trial_id, TrialState.SUCCEEDED, "", happening.checkpoint)
            case _:
                return str(self.CONTINUE if self._failed(trial_id, happening) else self.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """Follows every STOP."""
        self._free_slot(row_id(trial.trial_id))

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """The trainable's own process died; Tune starts it again."""
        trial_id = row_id(trial.trial_id)
        self._free_slot(trial_id)
        if self._recorder.trial(trial_id).state is TrialState.RUNNING:
            self._failed(trial_id, Ended(outcome=Outcome.LOST, reason="the process that led it was lost"))

    def _on_report(self, trial_id: int, reported: Reported) -> str:
        metric = self._sweep.metric
        self._recorder.reported(trial_id, reported)
        trial = self._recorder.trial(trial_id)
        if end := self._stop_if.look(trial, reported.step, stored(reported.metrics)):
            return self._end(trial_id, TrialState.STOPPED, end.reason, reported.checkpoint, healthy=end.healthy)
        value = reported.metrics.get(metric, math.nan)
        if not math.isfinite(value):
            return self._end(trial_id, TrialState.FAILED, _no_metric(metric, reported), own=True)
        told = self._rule.report(trial, reported.step, self._recorder.worth(trial_id, reported.step, value))
        if isinstance(told, Turn):
            self._recorder.turned(trial_id, told)
            self._rule.moved(self._recorder.trial(trial_id))
            self._again(self._recorder.trial(trial_id))
            return str(self.STOP)
        # With no step left to save, what it reached counts as reached
        if reported.step >= steps_of(trial):
            return str(self.CONTINUE)
        if reason := told.reason if told is not None else self._limits.used_up():
            return self._end(trial_id, TrialState.STOPPED, reason, reported.checkpoint)
        return self._as_people_want(trial_id, reported)

    def take_up(self, trial_id: int) -> Trial:
        """A person moved it: as it is now."""
        trial = self._recorder.take_up(trial_id)
        self._rule.moved(trial)
        return trial

    def _as_people_want(self, trial_id: int, reported: Reported) -> str:
        if self._people is None:
            return str(self.CONTINUE)
        if wished := self._people.wish(trial_id):
            return self._end(trial_id, WISHED[wished.wish], wished.reason, reported.checkpoint)
        if left := self._people.drained() & self._recorder.nodes(trial_id):
            reason = f"its node {min(left)[:12]} is drained; it goes on elsewhere"
            decision = self._end(trial_id, TrialState.PENDING, reason, reported.checkpoint)
            self._again(self._recorder.trial(trial_id))
            return decision
        return str(self.CONTINUE)

    def _end(self, trial_id: int, state: TrialState, reason: str, checkpoint: str | None = None, **how: Any) -> str:
        self._recorder.ended(trial_id, state, reason, checkpoint, **how)
        self._stop_if.forget(trial_id)
        self._rule.moved(self._recorder.trial(trial_id))
        return str(self.STOP)

    def _failed(self, trial_id: int, ended: Ended) -> bool:
        again = self._recorder.failed(trial_id, ended)
        if not again:
            self._stop_if.forget(trial_id)
        self._rule.moved(self._recorder.trial(trial_id))
        return again


def _no_metric(metric: str, reported: Reported) -> str:
    if metric in reported.metrics:
        return f"the sweep's metric {metric} is {reported.metrics[metric]} at step {reported.step}"
    return (
        f"the trial does not report the sweep's metric {metric!r}; it reports {', '.join(sorted(reported.metrics))}. "
        "Set metric.name to one of these"
    )
