"""What the use cases ask of the world. Adapters keep these promises; tests/contracts holds them to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from orchestrator.access import Role
from orchestrator.lifecycle import Actor, SweepState, TrialState, Wish
from orchestrator.records import (
    Capacity,
    Delivery,
    DriverStatus,
    Event,
    Facts,
    Healthy,
    Lease,
    Links,
    NewDelivery,
    NewSweep,
    NewTrial,
    Once,
    OutboxItem,
    Pace,
    Perturbation,
    Recorded,
    Report,
    Scalar,
    Sweep,
    Token,
    Trial,
    TrialMark,
    Usage,
    Waits,
    Wished,
)


class Clock(Protocol):
    """Time, as an argument."""

    def now(self) -> datetime:
        """The current time in UTC."""


class SweepStore(Protocol):
    """Sweeps and their events. One method, one transaction."""

    def add_sweep(
        self, sweep: NewSweep, trials: Sequence[NewTrial], *, now: datetime, once: Once | None = None
    ) -> Sweep:
        """Record a QUEUED sweep, its planned trials (PENDING) and the first event, all or nothing.

        With `once` it is recorded a single time: the same key again gives the sweep that is there. Raises Conflict
        where the key came with other content.

        A trial whose identity has a result in its project gets that: it is SUCCEEDED from the start, with the
        other's curves.
        """

    def record(
        self, sweep: NewSweep, trials: Sequence[NewTrial], *, now: datetime, once: Once | None = None
    ) -> Recorded:
        """The same; returns its trials, too."""

    def sweep(self, sweep_id: int) -> Sweep:
        """Raises NotFound."""

    def find_sweep(self, reference: str, *, project: str | None = None) -> Sweep:
        """By number, or by name (the newest of that name), of one project where that is given.

        Raises NotFound with the nearest names.
        """

    def sweeps(self, *, project: str | None = None, states: Sequence[SweepState] = (), limit: int = 100) -> list[Sweep]:
        """Newest first."""

    def some_sweeps(self, sweep_ids: Sequence[int]) -> list[Sweep]:
        """Those of these numbers that there are, in order of number."""

    def open_sweeps(self) -> list[Sweep]:
        """All that have not ended, by priority (high first), then age."""

    def progressed(self, sweep_id: int) -> bool:
        """Whether a trial of the sweep has reported since it was started last."""

    def move_sweep(
        self,
        sweep: Sweep,
        to: SweepState,
        *,
        actor: Actor,
        reason: str,
        now: datetime,
        slots: int | None = None,
        ray_job_id: str | None = None,
        losses: int | None = None,
    ) -> Sweep:
        """Take the move if the row is still at `sweep.version`, with its event, in one transaction.

        QUEUED -> STARTING adds one to `attempt` and writes `slots`; back to QUEUED, PAUSED or an end gives the slots
        back. `losses` is written where given; time in the queue is added up when it is left. A move to an end closes
        the trials that are still open (CANCELLED for a cancelled sweep, FAILED otherwise, with the reason). The outbox
        is told of starts, and of the ends of what had started.
        Raises StaleRow if somebody else moved it, IllegalMove if the table has no such move.
        """

    def allot(self, sweep_id: int, slots: int, reason: str) -> None:
        """Change how many trials a started sweep may run at once, and the sentence that says why it waits.

        Writes nothing where nothing changes, or where the sweep has ended.
        """

    def explain(self, reasons: Mapping[int, str]) -> None:
        """Write why sweeps wait; of those that are QUEUED still. No decision rests on it: versions stay."""

    def adjust(
        self,
        sweep_id: int,
        *,
        user: str,
        now: datetime,
        priority: int | None = None,
        max_concurrent: int | None = None,
    ) -> Sweep:
        """Write what is not None, with an event for each value that changed. An ended sweep stays as it is."""

    def retry(self, sweep: Sweep, *, user: str, now: datetime, trial_id: int | None = None) -> Sweep:
        """Make the sweep's FAILED and CANCELLED trials PENDING, as if they had never failed; an ended sweep QUEUED.

        trial_id: this one alone. The sweep's wish is to run, its lost drivers are forgotten. Raises StaleRow if
        somebody else moved it.
        """

    def wish(self, sweep_id: int, wish: Wish, *, user: str, reason: str, now: datetime) -> Sweep:
        """Record what people want of a sweep, with its event. A wish for an ended sweep changes nothing.

        Nor does a wish that the sweep has already.
        """

    def events(self, *, sweep_id: int | None = None, after: int = 0, limit: int = 1000) -> list[Event]:
        """In order of id."""

    def events_of_no_sweep(self, *, after: int = 0, limit: int = 1000) -> list[Event]:
        """What was done with tokens and nodes, in order of id."""

    def counts(self, *, project: str | None = None) -> Mapping[SweepState, int]:
        """Number of sweeps by state, states without any included; of one project where that is given."""

    def trial_counts(self, sweep_ids: Sequence[int]) -> Mapping[int, Mapping[TrialState, int]]:
        """Number of trials by sweep and state; only states that occur."""

    def open_trial_counts(self) -> Mapping[int, Mapping[TrialState, int]]:
        """The same of all sweeps that have not ended; only sweeps that have trials."""


class Ledger(Protocol):
    """What the policy has to know of the past."""

    def paces(self, sweep_ids: Sequence[int]) -> Mapping[int, Pace]:
        """How fast each of these sweeps' trials go."""

    def usage(self) -> list[Usage]:
        """Every account that ever held anything."""

    def charge(self, usage: Sequence[Usage]) -> None:
        """Write these accounts anew."""


class TrialStore(Protocol):
    """Trials and their reports. Only a sweep's driver writes here, but for what people wish; anybody reads."""

    def trial(self, trial_id: int) -> Trial:
        """Raises NotFound."""

    def trials(self, sweep_id: int) -> list[Trial]:
        """In order of number."""

    def children(self, trial_id: int) -> list[int]:
        """Trials that start from a checkpoint of this one, oldest first."""

    def add_trials(self, sweep_id: int, trials: Sequence[NewTrial], *, now: datetime) -> list[Trial]:
        """Record trials that a searcher proposed; a number that exists already is returned as it is."""

    def requeue_trials(self, sweep_id: int, *, reason: str, now: datetime) -> list[Trial]:
        """What a new driver does first: RUNNING trials become PENDING again, or what a person wished of them.

        Returns all open trials but those that are PAUSED.
        """

    def start_trial(self, trial_id: int, *, now: datetime) -> Trial:
        """PENDING -> RUNNING, attempt + 1, with its event and outbox item."""

    def results(self, config_hashes: Sequence[str], *, project: str) -> Mapping[str, int]:
        """By identity, the trial whose result stands for it in a project; of trials of these configurations."""

    def record(self, reports: Sequence[Report], *, facts: Mapping[int, Facts] | None = None) -> None:
        """Upsert reports by (trial, attempt, step), their summaries, outbox items and alarms, in one transaction.

        Recording a report again changes nothing. facts: by trial, written in the same transaction. An alarm that a
        report begins or ends (see `health`) becomes an event.
        Raises ValueError for a metric that is not finite.
        """

    def end_trial(
        self,
        trial_id: int,
        state: TrialState,
        *,
        reason: str,
        now: datetime,
        checkpoint_path: str | None = None,
        own_failure: bool = False,
        healthy: Healthy | None = None,
        attempt: int | None = None,
    ) -> Trial:
        """Move a trial to `state`: an end, PENDING for another attempt, or PAUSED; with its event and outbox item.

        own_failure adds one to `failures`. healthy: what alone counts of its curve from now on. attempt: the one that
        ends; where the trial is in another by now, IllegalMove.
        """

    def held_s(self, sweep_id: int) -> float:
        """Seconds for which the sweep's trials held their places, added up over all attempts that are over."""

    def adopt_trial(self, trial_id: int, *, parent_trial_id: int, parent_step: int) -> Trial:
        """Write what a trial starts from."""

    def note(self, trial_id: int, what: str, *, reason: str, now: datetime) -> None:
        """Write an event of a trial that moves nothing."""

    def perturb_trial(
        self,
        trial_id: int,
        perturbation: Perturbation,
        *,
        config: Mapping[str, Any],
        params: Mapping[str, Scalar],
        reason: str,
        now: datetime,
    ) -> Trial:
        """RUNNING -> PENDING with another configuration, which is nothing that other sweeps may share."""

    def wish(self, trial_id: int, wish: Wish, *, user: str, reason: str, now: datetime) -> Trial:
        """What a person wants of a trial: at once where it does not run, and a word to its driver where it does.

        A trial that has ended stays as it is, and so does one of which that is wished already.
        """

    def wishes(self, sweep_id: int) -> Mapping[int, Wished]:
        """By trial, what people want of those that run; nothing of those that are just to run."""

    def waiting(self, sweep_id: int) -> set[int]:
        """Trials that are PENDING."""

    def curve(self, trial_id: int, metric: str, *, attempts: range | None = None) -> list[tuple[int, float]]:
        """(step, value) of the trial's curve, or of some attempts alone; where they overlap, the latest one's value."""


class BoardStore(Protocol):
    """What the leaderboard is made from."""

    def board_trials(
        self,
        *,
        project: str | None = None,
        sweep_id: int | None = None,
        states: Sequence[TrialState] = (TrialState.SUCCEEDED, TrialState.STOPPED),
        limit: int = 10_000,
    ) -> list[Trial]:
        """Trials in these states that have reported at least once, newest first."""


class Outbox(Protocol):
    """What the tracker has yet to be told."""

    def pending(self, limit: int = 1000) -> list[OutboxItem]:
        """Oldest first."""

    def sent(self, ids: Sequence[int]) -> None:
        """Forget items that arrived."""

    def size(self, sweep_id: int | None = None, *, project: str | None = None) -> int:
        """Items that wait; of one sweep or project where that is given."""

    def link_sweep(self, sweep_id: int, mlflow_run_id: str) -> None:
        """Write the sweep's tracking run."""

    def link_trial(self, trial_id: int, mlflow_run_id: str) -> None:
        """Write the trial's tracking run."""


class Changes(Protocol):
    """What live streams read."""

    def newest_event(self, sweep_id: int) -> int:
        """Number of the sweep's newest event; 0 where there is none."""

    def marks(self, sweep_id: int) -> Mapping[int, TrialMark]:
        """A mark of each trial, by its id, that differs once anything about the trial does."""

    def trials(self, ids: Collection[int]) -> list[Trial]:
        """These trials, in order of number."""


class Deliveries(Protocol):
    """Webhook calls, and how far the audit log was read for them."""

    def bookmark(self) -> int:
        """Number of the last event that was read; at first that of the newest there is."""

    def plan(self, deliveries: Sequence[NewDelivery], *, seen: int, upto: int, now: datetime) -> None:
        """Write calls down and move the bookmark from `seen` to `upto`, both or neither."""

    def due(self, *, now: datetime, limit: int) -> list[Delivery]:
        """Calls that are to be tried: the oldest of each URL, then the second of each, and so on."""

    def put_off(self, delivery_id: int, *, tries: int, due_at: datetime) -> None:
        """Try again then."""

    def done(self, delivery_id: int) -> None:
        """It arrived, or never will."""

    def size(self) -> int:
        """Calls that wait."""

    def is_best(self, trial: Trial, sweep: Sweep) -> bool:
        """Whether a trial's score is better than that of every trial of the sweep that ended before it."""


class Figures(Protocol):
    """What operators watch."""

    def trial_states(self) -> Mapping[TrialState, int]:
        """Number of trials by state, states without any included."""

    def waits(self, bounds_s: Sequence[float]) -> Waits:
        """How long sweeps that have started had waited, and since when the longest waiting one waits."""

    def failures(self) -> Mapping[str, int]:
        """Number of failed trials by reason; the most frequent reasons."""

    def lost_drivers(self) -> int:
        """Drivers that open sweeps have lost since one last stopped in order."""


class TokenStore(Protocol):
    """Bearer tokens by the digests of their secrets."""

    def add_token(
        self, name: str, digest: str, *, role: Role, project: str | None, created_by: str, now: datetime
    ) -> Token:
        """Raises Conflict where a token of that name is in force."""

    def tokens(self) -> list[Token]:
        """All there ever were, oldest first."""

    def find_token(self, digest: str) -> Token | None:
        """The token in force that has this digest."""

    def replace_token(self, name: str, digest: str, *, by: str, now: datetime) -> Token:
        """A new secret for the token in force of that name; the old one is worth nothing. Raises NotFound."""

    def revoke_token(self, name: str, *, by: str, now: datetime) -> Token:
        """End the token in force of that name. Raises NotFound."""


class RepairStore(Protocol):
    """What is derived in the record, held against the points of the curves."""

    def curves(self, trial_id: int, *, since: int = 0) -> Mapping[str, Mapping[int, float]]:
        """Value by step, by metric, of attempts from `since` on; where they overlap, the latest attempt's value."""

    def wrong(self, trial_id: int) -> list[str]:
        """What is not as the trial's points say, a sentence each."""

    def recount(self, trial_id: int, *, user: str, now: datetime) -> None:
        """Write the trial's summaries, step and score as its points say, with an event."""

    def left_open(self) -> list[tuple[int, int]]:
        """(sweep, trial) of trials without an end whose sweep has one."""

    def close(self, sweep_id: int, *, now: datetime) -> None:
        """End the open trials of a sweep that has ended, as its end should have."""


class LeaseStore(Protocol):
    """Who acts as the coordinator. Numbers grow with each holder and are never given twice."""

    def see(self) -> Lease:
        """As it is now; number 0 before anybody held it."""

    def take(self, seen: Lease, holder: str, *, now: datetime) -> Lease | None:
        """Hold it under the next number, if it is still as `seen`; None if somebody was faster."""

    def renew(self, number: int, *, now: datetime) -> bool:
        """Show that the holder of this number lives; whether it still holds it."""

    def release(self, number: int) -> None:
        """Let the next one have it at once."""

    def confirm(self, number: int) -> None:
        """Raises LeaseLost unless this number holds it."""


class NodeStore(Protocol):
    """Nodes on which nothing is to run any more."""

    def drain(self, node_id: str, *, name: str, user: str, now: datetime) -> None:
        """Nothing is to run there. Safe to repeat. name: for people."""

    def undrain(self, node_id: str, *, name: str, user: str, now: datetime) -> None:
        """It may be used again. Safe to repeat."""

    def drained(self) -> frozenset[str]:
        """Ids of all of them."""


class Pool(Protocol):
    """What there is to run on."""

    def capacity(self) -> Capacity:
        """What the cluster has now. Raises Unreachable."""


class Launcher(Protocol):
    """The cluster, as the coordinator sees it. Every call raises Unreachable when the cluster does not answer."""

    def job_id(self, sweep_id: int, attempt: int) -> str:
        """The fixed id of that attempt's driver."""

    def start(self, sweep: Sweep) -> str:
        """Start the sweep's driver and return its job id. Starting the same attempt twice is the same as once."""

    def status(self, sweep: Sweep) -> DriverStatus:
        """What the cluster knows of the driver of the sweep's current attempt."""

    def stop(self, sweep: Sweep) -> None:
        """Ask the driver to stop. Safe to repeat."""

    def living(self) -> list[str]:
        """Job ids of this orch's drivers that live, those that are about to start included."""

    def end(self, job_id: str) -> None:
        """Ask a driver to stop, whosever it is. Safe to repeat."""

    def failure(self, sweep: Sweep) -> str:
        """Last words of a driver that died, in one sentence; "" if there are none."""

    def capacity(self) -> Capacity:
        """What the cluster has now."""


class Tracker(Protocol):
    """Where curves are shown. Raises Unreachable when it does not answer; never raises for what it is told."""

    def tell(
        self,
        items: Sequence[OutboxItem],
        sweeps: Mapping[int, Sweep],
        trials: Mapping[int, Trial],
        curves: Mapping[int, Sequence[tuple[int, float]]],
    ) -> Links:
        """Show these items. Telling an item again must not show it twice.

        trials: those that items name, and all of a sweep that ends. curves: (step, value) of the sweep's metric, by
        trial, for the trials that end among the items.
        """
