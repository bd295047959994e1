"""The coordinator's loop: decide from what is true now, act, and forget.

It remembers nothing between ticks that it could not ask for again, so one that was killed after any line needs no
recovery of its own: the next one looks at the same facts and takes the same step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from orchestrator.errors import ClusterError, StaleRow, Unreachable
from orchestrator.lifecycle import TRIAL_ENDS, Actor, SweepState, TrialState, Wish
from orchestrator.places import most_trials, without
from orchestrator.policy import Allotment, Demand, Rules, allot, averaged
from orchestrator.ports import Clock, Launcher, Ledger, SweepStore
from orchestrator.records import Capacity, DriverStatus, Pace, Sweep, Usage
from orchestrator.requisites import waiting
from orchestrator.spec.model import LEARNING
from orchestrator.spec.operations import Resources

log = logging.getLogger(__name__)

MAX_LOST_DRIVERS = 5
"""A sweep whose driver was lost so often, with no report and no orderly stop in between, fails: it kills drivers."""

CHARGE_EVERY = timedelta(minutes=1)
"""How often past usage is brought up to date."""

EXPLAIN_EVERY = timedelta(seconds=2)
"""How often the reasons of sweeps that wait are written: with thousands of them, at each tick would be too much."""

BELIEVE_DRIVERS_FOR = timedelta(seconds=2)
"""How long a driver that ran is taken to run on. An answer costs Ray more than a tick costs orch, for each sweep."""

LOOK_FOR_STRAYS_EVERY = timedelta(minutes=1)
"""How often drivers are looked for that no open sweep is to have."""

NO_PACE = Pace(trial_s=None, running_since=())


class Act(Enum):
    """What the coordinator may ask of the cluster."""

    START = "start"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Move:
    """A new state for the sweep, and why. losses: what its count of lost drivers becomes; None: it stays."""

    to: SweepState
    reason: str
    losses: int | None = None


S, D, T = SweepState, DriverStatus, TrialState
STARTED = (S.STARTING, S.RUNNING)
_GONE = (D.MISSING, D.DIED, D.STOPPED)


def decide(
    sweep: Sweep,
    driver: DriverStatus,
    trials: Mapping[TrialState, int],
    allotment: Allotment,
    last_words: str = "",
    progressed: bool = False,
) -> Act | Move | None:
    """The next step for one sweep; None to wait.

    progressed: whether a trial has reported since the driver was started; its loss then counts as the first.
    A sweep with a driver and without slots is on its way out: it was preempted, and its driver is stopped. One whose
    open trials are all kept by people is paused until they let one go.
    """
    open_trials, kept = _open(trials), trials.get(T.PAUSED, 0)
    if sweep.wish is Wish.CANCEL:
        return _towards_cancelled(sweep, driver)
    if sweep.state in STARTED and driver is D.DONE and not open_trials:
        return _ended(trials)
    if sweep.wish is Wish.PAUSE:
        return _towards_paused(sweep, driver)
    if kept and kept == open_trials and not _unproposed(sweep, trials):
        return _towards_kept(sweep, driver, kept)
    match sweep.state, driver:
        case S.PAUSED, _:
            return Move(S.QUEUED, "resumed on request")
        case S.QUEUED, _:
            return Move(S.STARTING, "it has its share of the pool") if allotment.slots else None
        case _ if not sweep.slots:
            return Move(S.QUEUED, sweep.reason, losses=0) if driver in (*_GONE, D.DONE) else Act.STOP
        case S.STARTING, D.MISSING:
            return Act.START
        case S.STARTING, D.RUNNING:
            return Move(S.RUNNING, "its driver is up")
        case _, (D.DONE | D.DIED | D.STOPPED | D.MISSING):
            return _lost(sweep, last_words, progressed)
        case _:
            return None


def _towards_cancelled(sweep: Sweep, driver: DriverStatus) -> Act | Move | None:
    if sweep.state in (S.QUEUED, S.PAUSED) or driver in (*_GONE, D.DONE):
        return Move(S.CANCELLED, "cancelled on request")
    return Act.STOP


def _towards_paused(sweep: Sweep, driver: DriverStatus) -> Act | Move | None:
    if sweep.state is S.PAUSED:
        return None
    if sweep.state is S.QUEUED or driver in (*_GONE, D.DONE):
        return Move(S.PAUSED, "paused on request", losses=0)
    return Act.STOP


def _towards_kept(sweep: Sweep, driver: DriverStatus, kept: int) -> Move | None:
    if sweep.state is S.QUEUED or (sweep.state in STARTED and driver in (*_GONE, D.DONE)):
        return Move(S.PAUSED, f"of its trials, {kept} {'is' if kept == 1 else 'are'} open, and paused", losses=0)
    return None


def _ended(trials: Mapping[TrialState, int]) -> Move:
    good = trials.get(T.SUCCEEDED, 0) + trials.get(T.STOPPED, 0)
    bad = trials.get(T.FAILED, 0)
    if good or not bad:
        return Move(S.SUCCEEDED, f"{good} trials ended with a result, {bad} failed")
    return Move(S.FAILED, f"all {bad} trials failed")


def _lost(sweep: Sweep, last_words: str, progressed: bool) -> Move:
    why = f"its driver was lost{': ' + last_words if last_words else ''}"
    losses = 1 if progressed else sweep.losses + 1
    if losses >= MAX_LOST_DRIVERS:
        return Move(S.FAILED, f"{why}; that was {losses} times of {MAX_LOST_DRIVERS}", losses)
    return Move(S.QUEUED, f"{why}; it will be started again", losses)


class Coordinator:
    """Brings every open sweep one step further at each tick."""

    def __init__(
        self,
        store: SweepStore,
        ledger: Ledger,
        launcher: Launcher,
        clock: Clock,
        rules: Rules | None = None,
        confirm: Callable[[], None] = lambda: None,
        drained: Callable[[], frozenset[str]] = frozenset,
        believe: timedelta = timedelta(0),
    ) -> None:
        """confirm: called before the cluster is asked for anything; raises LeaseLost if another coordinator acts.

        drained: ids of nodes on which nothing is to run. believe: how long a driver that ran, and has trials to run,
            is taken to run on without a question.
        """
        self.store, self.ledger, self.launcher, self.clock = store, ledger, launcher, clock
        self.rules, self.confirm, self.drained = rules or Rules(), confirm, drained
        self._explained: datetime | None = None
        self._looked: datetime | None = None
        self._believe = believe
        self._ran: dict[str, datetime] = {}
        """By job id: when a driver was last seen to run."""

    def tick(self) -> None:
        """One round. Raises Unreachable when the database or the cluster does not answer; the next tick asks again.

        Raises LeaseLost, with nothing written, if another coordinator acts by now.
        """
        sweeps = self.store.open_sweeps()
        if sweeps or self._looked is not None:  # one that never had any work has no need of Ray's client
            self._stop_strays(sweeps)
        if not sweeps:
            return
        trials = self.store.open_trial_counts()
        pool = without(self.launcher.capacity(), self.drained())
        now = self.clock.now()
        waits = waiting(sweeps, self.store)
        demands = self._demands([sweep for sweep in sweeps if sweep.id not in waits], trials, pool, now)
        usage = self._charged(demands, pool, now)
        allotments = allot(demands, pool, {(each.project, each.user): each.share for each in usage}, self.rules)
        allotments |= {sweep_id: Allotment(0, each.reason) for sweep_id, each in waits.items()}
        for sweep in sweeps:
            try:
                if sweep.id in waits and waits[sweep.id].hopeless and sweep.wish is Wish.RUN:
                    self._move(sweep, Move(S.FAILED, waits[sweep.id].reason), allotments[sweep.id])
                else:
                    self._advance(sweep, trials.get(sweep.id, {}), allotments[sweep.id], now)
            except StaleRow:
                log.info("sweep %d was moved by somebody else; looking again at the next tick", sweep.id)
            except ClusterError as error:
                log.warning("sweep %d: %s", sweep.id, error)
        self._explain(sweeps, allotments, now)

    def _demands(
        self,
        sweeps: Sequence[Sweep],
        trials: Mapping[int, Mapping[TrialState, int]],
        pool: Capacity,
        now: datetime,
    ) -> list[Demand]:
        started = [sweep.id for sweep in sweeps if sweep.state in STARTED]
        # How long trials take matters to those that wait alone
        paces = self.ledger.paces(started) if len(started) < len(sweeps) else {}
        oldest_first = sorted(sweeps, key=lambda sweep: sweep.id)
        fitting = _Fitting(pool)
        return [
            demand_of(
                each,
                trials.get(each.id, {}),
                paces.get(each.id, NO_PACE),
                now,
                self.rules.guess_s,
                fitting.trials(each.spec["resources"]),
            )
            for each in oldest_first
        ]

    def _charged(self, demands: Sequence[Demand], pool: Capacity, now: datetime) -> list[Usage]:
        """Past usage by account, brought up to date once a minute."""
        before = self.ledger.usage()
        since = max((each.at for each in before), default=None)
        if since is not None and now - since < CHARGE_EVERY:
            return before
        after = charged(before, demands, pool, now, self.rules.half_life_s)
        self.ledger.charge(after)
        return after

    def _advance(self, sweep: Sweep, trials: Mapping[TrialState, int], allotment: Allotment, now: datetime) -> None:
        has_driver = sweep.state in STARTED
        driver = self._status(sweep, trials, now) if has_driver else D.MISSING
        last_words = self.launcher.failure(sweep) if driver in (D.DIED, D.STOPPED) else ""
        progressed = bool(sweep.losses) and driver in (*_GONE, D.DONE) and self.store.progressed(sweep.id)
        match decide(sweep, driver, trials, allotment, last_words, progressed):
            case Act.START:
                self.confirm()
                job_id = self.launcher.start(sweep)
                log.info("sweep %d: starts driver %s", sweep.id, job_id)
            case Act.STOP:
                self.confirm()
                self.launcher.stop(sweep)
            case Move() as move:
                self._move(sweep, move, allotment)
            case None if has_driver and sweep.wish is Wish.RUN:
                self._reallot(sweep, allotment)

    def _status(self, sweep: Sweep, trials: Mapping[TrialState, int], now: datetime) -> DriverStatus:
        job_id = self.launcher.job_id(sweep.id, sweep.attempt)
        on_its_way = sweep.wish is Wish.RUN and sweep.slots and trials.get(T.RUNNING)
        if on_its_way and (ran := self._ran.get(job_id)) and timedelta(0) <= now - ran < self._believe:
            return D.RUNNING
        status = self.launcher.status(sweep)
        if status is D.RUNNING:
            self._ran[job_id] = now
        else:
            self._ran.pop(job_id, None)
        return status

    def _move(self, sweep: Sweep, move: Move, allotment: Allotment) -> None:
        starts = move.to is S.STARTING
        self.store.move_sweep(
            sweep,
            move.to,
            actor=Actor.COORDINATOR,
            reason=move.reason,
            now=self.clock.now(),
            slots=allotment.slots if starts else None,
            ray_job_id=self.launcher.job_id(sweep.id, sweep.attempt + 1) if starts else None,
            losses=move.losses,
        )
        log.info("sweep %d: %s -> %s: %s", sweep.id, sweep.state, move.to, move.reason)

    def _reallot(self, sweep: Sweep, allotment: Allotment) -> None:
        """Slots of a started sweep. None at all is written first: it is what the next tick stops the driver for."""
        if allotment.slots == sweep.slots:
            return
        self.store.allot(sweep.id, allotment.slots, sweep.reason if allotment.slots else allotment.reason)
        if not allotment.slots:
            log.info("sweep %d: %s", sweep.id, allotment.reason)

    def _stop_strays(self, sweeps: Sequence[Sweep]) -> None:
        """A cancel reaches work that has no owner: drivers of ended sweeps and of earlier attempts are stopped."""
        now = self.clock.now()
        if self._looked is not None and timedelta(0) < now - self._looked < LOOK_FOR_STRAYS_EVERY:
            return
        self._looked = now
        try:
            found = strays(sweeps, self.launcher)
        except ClusterError as error:
            log.warning("%s", error)
            return
        except Unreachable:
            if sweeps:
                raise
            return  # nobody waits for a cluster that has nothing to do
        for job_id in found:
            self.confirm()
            log.warning("driver %s runs though no open sweep is to have it; stopping it", job_id)
            try:
                self.launcher.end(job_id)
            except ClusterError as error:
                log.warning("%s", error)

    def _explain(self, sweeps: Sequence[Sweep], allotments: Mapping[int, Allotment], now: datetime) -> None:
        if self._explained is not None and timedelta(0) < now - self._explained < EXPLAIN_EVERY:
            return
        self._explained = now
        self.store.explain(
            {
                sweep.id: allotments[sweep.id].reason
                for sweep in sweeps
                if sweep.state is S.QUEUED and allotments[sweep.id].reason not in ("", sweep.reason)
            }
        )


def strays(sweeps: Sequence[Sweep], launcher: Launcher) -> list[str]:
    """Drivers that live though no open sweep is to have them: of another attempt, or of a sweep that has ended.

    sweeps: all that have not ended, read before the cluster is asked.
    """
    needed = {launcher.job_id(sweep.id, sweep.attempt) for sweep in sweeps if sweep.state in STARTED}
    return sorted(set(launcher.living()) - needed)


_ASKED = tuple(name for name in Resources.model_fields if name not in ("labels", "max_concurrent"))


class _Fitting:
    """How many trials the nodes of a cluster can hold at once; thousands of sweeps ask for a few kinds of them."""

    def __init__(self, pool: Capacity) -> None:
        self._places = pool.places
        self._known: dict[tuple[Any, ...], int] = {}

    def trials(self, words: Mapping[str, Any]) -> int | None:
        """None where the nodes are not known."""
        if not self._places:
            return None
        # Each tick asks for every sweep in the queue; a `repr` would take most of that
        key = (*map(words.get, _ASKED), *words.get("labels", {}).items())
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = most_trials(Resources.model_validate(words), self._places)
        return known


def demand_of(
    sweep: Sweep,
    trials: Mapping[TrialState, int],
    pace: Pace,
    now: datetime,
    guess_s: float,
    fitting: int | None = None,
) -> Demand:
    """What a sweep could use now, and what it holds. fitting: trials that the nodes can hold; None: not known."""
    resources = sweep.spec["resources"]
    open_trials = _open(trials) - trials.get(T.PAUSED, 0) + _unproposed(sweep, trials)
    # A sweep whose trials have all ended keeps one place until its driver has closed it; and if that was lost, another
    # driver does.
    useful = max(open_trials, 1)
    limit = sweep.max_concurrent or resources.get("max_concurrent") or useful
    started = sweep.state in STARTED
    if fitting is not None:
        # One that has started keeps a place: what it runs on may be drained, and it leaves that by itself
        limit = min(limit, max(fitting, started))
    wanted = sweep.wish is Wish.RUN and sweep.state is not S.PAUSED
    queued_s = (now - sweep.queued_at).total_seconds() if sweep.state is S.QUEUED else 0.0
    return Demand(
        sweep_id=sweep.id,
        name=sweep.name,
        priority=sweep.priority,
        trials=min(useful, limit) if wanted else 0,
        cpus=resources["workers"] * resources["cpu"],
        gpus=resources["workers"] * resources["gpu"],
        started=started,
        pool=resources.get("pool") or "",
        homeless=fitting == 0,
        project=sweep.project,
        user=sweep.user,
        open_trials=open_trials,
        stopping=started and (not wanted or not sweep.slots),
        slots=sweep.slots,
        running=trials.get(T.RUNNING, 0) if started else 0,
        waited_s=sweep.waited_s + max(queued_s, 0.0),
        trial_s=pace.trial_s,
        ends_s=_ends_s(pace, now, guess_s) if started else (),
    )


def _unproposed(sweep: Sweep, trials: Mapping[TrialState, int]) -> int:
    """Trials that a method which learns has yet to propose: work to come, though no rows tell of it."""
    search = sweep.spec["search"]
    return max(0, search["max_trials"] - sum(trials.values())) if search["method"] in LEARNING else 0


def _open(trials: Mapping[TrialState, int]) -> int:
    return sum(count for state, count in trials.items() if state not in TRIAL_ENDS)


def _ends_s(pace: Pace, now: datetime, guess_s: float) -> tuple[float, ...]:
    """A trial that has lasted longer than the mean is expected to last as long again."""
    trial_s = guess_s if pace.trial_s is None else pace.trial_s
    ages = [max((now - since).total_seconds(), 0.0) for since in pace.running_since]
    return tuple(trial_s - age if age < trial_s else age for age in ages)


def charged(
    before: Sequence[Usage], demands: Sequence[Demand], pool: Capacity, now: datetime, half_life_s: float
) -> list[Usage]:
    """Past usage with what is held now. What was held while nobody looked is not charged: nobody knows it."""
    shares: dict[tuple[str, str], float] = {}
    for demand in demands:
        if demand.held:
            account = (demand.project, demand.user)
            shares[account] = shares.get(account, 0.0) + demand.held * demand.share_of(pool)
    known = {(each.project, each.user): each for each in before}
    found = []
    for project, user in sorted({*known, *shares}):
        old = known.get((project, user))
        passed = max(now - old.at, timedelta(0)) if old else CHARGE_EVERY
        share = averaged(
            old.share if old else 0.0,
            shares.get((project, user), 0.0),
            held_s=min(passed, 5 * CHARGE_EVERY).total_seconds(),
            passed_s=passed.total_seconds(),
            half_life_s=half_life_s,
        )
        found.append(Usage(project=project, user=user, share=share, at=now))
    return found
