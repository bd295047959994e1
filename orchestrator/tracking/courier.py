"""Carries the outbox to the tracker: in order, until it arrives, however long the tracker is away."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from orchestrator.errors import LeaseLost, Unreachable
from orchestrator.ports import Outbox, SweepStore, Tracker, TrialStore
from orchestrator.records import Links, Sweep, Topic, Trial

log = logging.getLogger(__name__)

BATCH = 500
IDLE_S = 0.5
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0


class Courier:
    """Takes items from the outbox, tells the tracker, and forgets them only then.

    connect: makes the tracker when there is something to tell for the first time, in the courier's own thread, for
        that may take seconds. chance: a number in [0, 1), for the jitter between attempts. acts: whether it may carry
        now; two couriers at once would show things twice.
    """

    def __init__(
        self,
        outbox: Outbox,
        sweeps: SweepStore,
        trials: TrialStore,
        connect: Callable[[], Tracker],
        chance: Callable[[], float] = random.random,
        acts: Callable[[], bool] = lambda: True,
    ) -> None:
        self._outbox = outbox
        self._sweeps = sweeps
        self._trials = trials
        self._connect = connect
        self._chance = chance
        self._acts = acts
        self._tracker: Tracker | None = None

    def run(self, stop: threading.Event) -> None:
        """Carry until `stop` is set. Nothing that goes wrong ends it: the wait grows, up to a minute."""
        failures = 0
        while not stop.is_set():
            try:
                carried = self.drain_once() if self._acts() else 0
            except Unreachable as error:
                failures += 1
                log.log(logging.WARNING if failures == 1 else logging.DEBUG, "%s; what it misses is kept", error)
            except LeaseLost as error:
                log.info("%s; what was told may be told again", error)
            except Exception:
                failures += 1
                log.exception("what the tracker misses could not be carried; it is kept")
            else:
                if failures:
                    log.info("the tracker answers again")
                failures = 0
                if carried:
                    continue
            stop.wait(self.pause_s(failures))

    def drain_once(self) -> int:
        """Carry the oldest items and return how many they were. Raises Unreachable; then all of them are kept."""
        items = self._outbox.pending(BATCH)
        if not items:
            return 0
        if self._tracker is None:
            self._tracker = self._connect()
        sweeps = {sweep_id: self._sweeps.sweep(sweep_id) for sweep_id in {item.sweep_id for item in items}}
        trials = {
            trial_id: self._trials.trial(trial_id)
            for trial_id in {item.trial_id for item in items} - {None}
            if trial_id
        }
        for item in items:
            if item.topic is Topic.SWEEP_ENDED:
                trials |= {trial.id: trial for trial in self._trials.trials(item.sweep_id)}
        ended = {item.trial_id for item in items if item.topic is Topic.TRIAL_ENDED and item.trial_id}
        curves = {
            trial_id: self._trials.curve(trial_id, sweeps[trials[trial_id].sweep_id].metric) for trial_id in ended
        }
        links = self._tracker.tell(items, sweeps, trials, curves)
        self._link(links, sweeps, trials)
        self._outbox.sent([item.id for item in items])
        return len(items)

    def pause_s(self, failures: int) -> float:
        """How long to wait, in seconds, after so many failures in a row."""
        if failures == 0:
            return IDLE_S
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(failures - 1, 16))
        # Half of it by chance: several coordinators that lost one tracker must not all come back in the same second.
        return longest * (0.5 + 0.5 * self._chance())

    def _link(self, links: Links, sweeps: dict[int, Sweep], trials: dict[int, Trial]) -> None:
        for sweep_id, run_id in links.sweeps.items():
            if sweeps[sweep_id].mlflow_run_id != run_id:
                self._outbox.link_sweep(sweep_id, run_id)
        for trial_id, run_id in links.trials.items():
            if trials[trial_id].mlflow_run_id != run_id:
                self._outbox.link_trial(trial_id, run_id)
