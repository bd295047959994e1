"""The coordinator's loop: decide from what is true now, act, and forget.

It remembers nothing between ticks that is not in the database, so one that was killed after any line needs no recovery
of its own: the next one looks at the same facts and takes the same step.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from orchestrator.errors import ClusterError, StaleRow
from orchestrator.lifecycle import TRIAL_ENDS, Actor, SweepState, TrialState, Wish
from orchestrator.policy import Allotment, Demand, allot
from orchestrator.ports import Clock, Launcher, SweepStore
from orchestrator.records import DriverStatus, Sweep

log = logging.getLogger(__name__)

MAX_LOST_DRIVERS = 5
"""A sweep whose driver was lost so often in a row fails: something in it kills drivers."""


class Act(Enum):
    """What the coordinator may ask of the cluster."""

    START = "start"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Move:
    """A new state for the sweep, and why."""

    to: SweepState
    reason: str


S, D, T = SweepState, DriverStatus, TrialState
_GONE = (D.MISSING, D.DIED, D.STOPPED)


def decide(
    sweep: Sweep, driver: DriverStatus, trials: Mapping[TrialState, int], allotment: Allotment, last_words: str = ""
) -> Act | Move | None:
    """The next step for one sweep; None to wait."""
    open_trials = sum(count for state, count in trials.items() if state not in TRIAL_ENDS)
    if sweep.wish is Wish.CANCEL:
        return _towards_cancelled(sweep, driver)
    match sweep.state, driver:
        case S.QUEUED, _:
            return Move(S.STARTING, "it has its share of the pool") if allotment.slots else None
        case S.STARTING, D.MISSING:
            return Act.START
        case S.STARTING, D.RUNNING:
            return Move(S.RUNNING, "its driver is up")
        case ((S.STARTING | S.RUNNING), D.DONE) if not open_trials:
            return _ended(trials)
        case ((S.STARTING | S.RUNNING), (D.DONE | D.DIED | D.STOPPED | D.MISSING)):
            return _lost(sweep, last_words)
        case _:
            return None


def _towards_cancelled(sweep: Sweep, driver: DriverStatus) -> Act | Move | None:
    if sweep.state in (S.QUEUED, S.PAUSED) or driver in (*_GONE, D.DONE):
        return Move(S.CANCELLED, "cancelled on request")
    return Act.STOP


def _ended(trials: Mapping[TrialState, int]) -> Move:
    good = trials.get(T.SUCCEEDED, 0) + trials.get(T.STOPPED, 0)
    bad = trials.get(T.FAILED, 0)
    if good or not bad:
        return Move(S.SUCCEEDED, f"{good} trials ended with a result, {bad} failed")
    return Move(S.FAILED, f"all {bad} trials failed")


def _lost(sweep: Sweep, last_words: str) -> Move:
    why = f"its driver was lost{': ' + last_words if last_words else ''}"
    if sweep.attempt >= MAX_LOST_DRIVERS:
        return Move(S.FAILED, f"{why}; that was start {sweep.attempt} of {MAX_LOST_DRIVERS}")
    return Move(S.QUEUED, f"{why}; it will be started again")


class Coordinator:
    """Brings every open sweep one step further at each tick."""

    def __init__(self, store: SweepStore, launcher: Launcher, clock: Clock) -> None:
        self.store, self.launcher, self.clock = store, launcher, clock

    def tick(self) -> None:
        """One round. Raises Unreachable when the database or the cluster does not answer; the next tick asks again."""
        sweeps = self.store.open_sweeps()
        if not sweeps:
            return
        trials = self.store.trial_counts([sweep.id for sweep in sweeps])
        pool = self.launcher.capacity()
        allotments = allot([demand_of(sweep, trials.get(sweep.id, {})) for sweep in sweeps], pool)
        for sweep in sweeps:
            try:
                self._advance(sweep, trials.get(sweep.id, {}), allotments[sweep.id])
            except StaleRow:
                log.info("sweep %d was moved by somebody else; looking again at the next tick", sweep.id)
            except ClusterError as error:
                log.warning("sweep %d: %s", sweep.id, error)

    def _advance(self, sweep: Sweep, trials: Mapping[TrialState, int], allotment: Allotment) -> None:
        driver = self.launcher.status(sweep) if sweep.attempt and sweep.state is not S.QUEUED else D.MISSING
        last_words = self.launcher.failure(sweep) if driver in (D.DIED, D.STOPPED) else ""
        match decide(sweep, driver, trials, allotment, last_words):
            case Act.START:
                job_id = self.launcher.start(sweep)
                log.info("sweep %d: started driver %s", sweep.id, job_id)
            case Act.STOP:
                self.launcher.stop(sweep)
            case Move(to, reason):
                self._move(sweep, to, reason, allotment)
            case None:
                self._reallot(sweep, allotment)

    def _move(self, sweep: Sweep, to: SweepState, reason: str, allotment: Allotment) -> None:
        starts = to is S.STARTING
        self.store.move_sweep(
            sweep,
            to,
            actor=Actor.COORDINATOR,
            reason=reason,
            now=self.clock.now(),
            slots=allotment.slots if starts else None,
            ray_job_id=self.launcher.job_id(sweep.id, sweep.attempt + 1) if starts else None,
        )
        log.info("sweep %d: %s -> %s: %s", sweep.id, sweep.state, to, reason)

    def _reallot(self, sweep: Sweep, allotment: Allotment) -> None:
        if sweep.state is S.QUEUED:
            slots, reason = 0, allotment.reason
        else:
            # A started sweep keeps one slot: taking its last one is preemption, which is a decision of its own.
            slots, reason = max(1, allotment.slots), sweep.reason
        if (slots, reason) != (sweep.slots, sweep.reason):
            self.store.allot(sweep.id, slots, reason)


def demand_of(sweep: Sweep, trials: Mapping[TrialState, int]) -> Demand:
    """What a sweep could use now."""
    resources = sweep.spec["resources"]
    open_trials = sum(count for state, count in trials.items() if state not in TRIAL_ENDS)
    limit = resources.get("max_concurrent") or open_trials
    wanted = sweep.wish is Wish.RUN and sweep.state is not S.PAUSED
    return Demand(
        sweep_id=sweep.id,
        name=sweep.name,
        priority=sweep.priority,
        trials=min(open_trials, limit) if wanted else 0,
        cpus=resources["workers"] * resources["cpu"],
        gpus=resources["workers"] * resources["gpu"],
        started=sweep.state in (S.STARTING, S.RUNNING),
    )
