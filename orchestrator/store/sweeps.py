"""Every SQL statement on sweeps and their events; one method, one transaction."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from orchestrator.errors import NotFound, OrchError, StaleRow
from orchestrator.lifecycle import SWEEP_ENDS, Actor, SweepState, TrialState, Wish, check_sweep_move
from orchestrator.records import Event, NewSweep, NewTrial, Once, Recorded, Sweep, Topic, Trial
from orchestrator.store import audit
from orchestrator.store import schema as t
from orchestrator.store.accepting import Arrival, accept
from orchestrator.store.bulk import update_rows
from orchestrator.store.database import AnyRow, Database, is_id
from orchestrator.store.together import Together
from orchestrator.store.trials import OPEN, ended_item, load_trials, lock_trials, move_trials, put_back

IDS_A_QUERY = 5000  # SQLite takes 32,766 values in one statement
NEAR_NAMES_AMONG = 1000  # newest sweeps whose names are compared with one that is not found

_QUERY = sa.select(t.sweep, t.project.c.name.label("project")).join(t.project)
# Whatever else of a sweep changes, its version changes with it
_MARKS = sa.select(t.sweep.c.id, t.sweep.c.version, t.sweep.c.reason, t.sweep.c.mlflow_run_id)


class SqlSweeps:
    """`ports.SweepStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._accepting: Together[Arrival, Recorded] = Together(database, _accepted)
        self._open: Mapping[int, Sweep] = {}

    def add_sweep(
        self, sweep: NewSweep, trials: Sequence[NewTrial], *, now: datetime, once: Once | None = None
    ) -> Sweep:
        """Record a QUEUED sweep, its planned trials (PENDING) and the first event, all or nothing.

        With `once` it is recorded a single time: the same key again gives the sweep that is there. Raises Conflict
        where the key came with other content.

        A trial whose identity has a result in its project gets that: it is SUCCEEDED from the start, with the
        other's curves. The seal of what the spec claims is the first event.
        """
        return self.record(sweep, trials, now=now, once=once).sweep

    def record(
        self, sweep: NewSweep, trials: Sequence[NewTrial], *, now: datetime, once: Once | None = None
    ) -> Recorded:
        """The same; returns its trials, too."""
        return self._accepting.do(Arrival(sweep, trials, now, once))

    def sweep(self, sweep_id: int) -> Sweep:
        """Raises NotFound."""
        with self._database.read() as connection:
            return _load_one(connection, sweep_id)

    def find_sweep(self, reference: str, *, project: str | None = None) -> Sweep:
        """By number, or by name (the newest of that name), of one project where that is given.

        Raises NotFound with the nearest names.
        """
        # A number that is some sweep's name as well means the number.
        wanted = [t.sweep.c.id == int(reference)] if reference.isdecimal() and is_id(int(reference)) else []
        wanted.append(t.sweep.c.name == reference)
        seen = sa.true() if project is None else t.project.c.name == project
        newest = _QUERY.where(seen).order_by(t.sweep.c.id.desc())
        with self._database.read() as connection:
            for condition in wanted:
                row = connection.execute(newest.where(condition).limit(1)).one_or_none()
                if row is not None:
                    return _sweep(row)
            names = connection.execute(newest.with_only_columns(t.sweep.c.name).limit(NEAR_NAMES_AMONG)).scalars()
            near = difflib.get_close_matches(reference, sorted(set(names)))
        hint = f"did you mean {' or '.join(near)}?" if near else "`orch list` shows all sweeps"
        raise NotFound(f"no sweep has the number or name {reference!r}; {hint}")

    def sweeps(self, *, project: str | None = None, states: Sequence[SweepState] = (), limit: int = 100) -> list[Sweep]:
        """Newest first."""
        query = _QUERY.order_by(t.sweep.c.id.desc()).limit(limit)
        if project is not None:
            query = query.where(t.project.c.name == project)
        if states:
            query = query.where(t.sweep.c.state.in_(states))
        with self._database.read() as connection:
            return [_sweep(row) for row in connection.execute(query)]

    def some_sweeps(self, sweep_ids: Sequence[int]) -> list[Sweep]:
        """Those of these numbers that there are, in order of number."""
        query = _QUERY.where(t.sweep.c.id.in_(sweep_ids)).order_by(t.sweep.c.id)
        with self._database.read() as connection:
            return [_sweep(row) for row in connection.execute(query)]

    def open_sweeps(self) -> list[Sweep]:
        """All that have not ended, by priority (high first), then age."""
        query = _MARKS.where(t.sweep.c.state.not_in(SWEEP_ENDS)).order_by(t.sweep.c.priority.desc(), t.sweep.c.id)
        with self._database.read() as connection:
            marks = connection.execute(query).all()
            # Each tick asks for all of these, and few have changed since the last
            found = {mark.id: _as_marked(seen, mark) for mark in marks if (seen := self._open.get(mark.id))}
            changed = [mark.id for mark in marks if mark.id not in found or found[mark.id].version != mark.version]
            for start in range(0, len(changed), IDS_A_QUERY):
                rows = connection.execute(_QUERY.where(t.sweep.c.id.in_(changed[start : start + IDS_A_QUERY])))
                found |= {row.id: _sweep(row) for row in rows}
        self._open = found
        # One may have ended between the two statements
        return [found[mark.id] for mark in marks if found[mark.id].state not in SWEEP_ENDS]

    def progressed(self, sweep_id: int) -> bool:
        """Whether a trial of the sweep has reported since it was started last."""
        e, p = t.event.c, t.metric_point.c
        start = f"{SweepState.QUEUED} -> {SweepState.STARTING}"
        started = sa.select(sa.func.max(e.at)).where(e.sweep_id == sweep_id, e.what == start).scalar_subquery()
        query = sa.select(p.trial_id).join(t.trial, t.trial.c.id == p.trial_id)
        query = query.where(t.trial.c.sweep_id == sweep_id, p.at >= started).limit(1)
        with self._database.read() as connection:
            return connection.execute(query).first() is not None

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
        back. `losses` is written where given; time in the queue is added up when it is left. A move to QUEUED or PAUSED
        makes the trials that its driver left RUNNING wait again. A move to an end closes the trials that are
        still open (CANCELLED for a cancelled sweep, FAILED otherwise, with the reason). The outbox is told of starts,
        and of the ends of what had started.
        Raises StaleRow if somebody else moved it, IllegalMove if the table has no such move.
        """
        check_sweep_move(sweep.state, to, actor)
        values = _move_values(sweep, to, reason=reason, now=now, slots=slots, ray_job_id=ray_job_id)
        if losses is not None:
            values["losses"] = losses
        guarded = sa.update(t.sweep).where(t.sweep.c.id == sweep.id, t.sweep.c.version == sweep.version)
        with self._database.write() as connection:
            if not connection.execute(guarded.values(values)).rowcount:
                raise _stale(sweep, _load_one(connection, sweep.id), to)
            events = [audit.event(sweep.id, actor, f"{sweep.state} -> {to}", reason=reason, now=now)]
            if to in SWEEP_ENDS:
                events += _close(connection, sweep, to, actor=actor, reason=reason, now=now)
            elif to in (SweepState.QUEUED, SweepState.PAUSED):
                events += put_back(connection, sweep.id, actor=actor, reason=reason, now=now)
            elif to is SweepState.STARTING:
                started = audit.item(Topic.SWEEP_STARTED, sweep.id, attempt=sweep.attempt + 1, at=now.isoformat())
                audit.write_outbox(connection, [started])
            audit.write_events(connection, events)
            return _load_one(connection, sweep.id)

    def allot(self, sweep_id: int, slots: int, reason: str) -> None:
        """Change how many trials a started sweep may run at once, and the sentence that says why it waits.

        Writes nothing where nothing changes, or where the sweep has ended. Raises NotFound.
        """
        seen = self.sweep(sweep_id)
        if (seen.slots, seen.reason) == (slots, reason):
            return  # a tick allots to every sweep: most of these calls must not ask for the write lock
        c = t.sweep.c
        statement = sa.update(t.sweep).where(c.id == sweep_id, c.state.not_in(SWEEP_ENDS))
        with self._database.write() as connection:
            connection.execute(statement.values(slots=slots, reason=reason, version=c.version + 1))

    def explain(self, reasons: Mapping[int, str]) -> None:
        """Write why sweeps wait; of those that are QUEUED still. No decision rests on it: versions stay."""
        if not reasons:
            return
        rows = [{"id": sweep_id, "reason": reason} for sweep_id, reason in reasons.items()]
        with self._database.write() as connection:
            update_rows(connection, t.sweep, rows, t.sweep.c.state == SweepState.QUEUED)

    def adjust(
        self,
        sweep_id: int,
        *,
        user: str,
        now: datetime,
        priority: int | None = None,
        max_concurrent: int | None = None,
    ) -> Sweep:
        """Write what is not None, with an event for each value that changed. An ended sweep stays as it is.

        Raises NotFound.
        """
        wanted = {"priority": priority, "max_concurrent": max_concurrent}
        with self._database.write() as connection:
            row = _load_one(connection, sweep_id, lock=True)
            new = {name: value for name, value in wanted.items() if value not in (None, getattr(row, name))}
            if not new or row.state in SWEEP_ENDS:
                return row
            statement = sa.update(t.sweep).where(t.sweep.c.id == sweep_id)
            connection.execute(statement.values(**new, version=t.sweep.c.version + 1))
            audit.write_events(
                connection,
                [
                    audit.event(sweep_id, user, f"set {name} to {value}", reason=_before(row, name), now=now)
                    for name, value in new.items()
                ],
            )
            return _load_one(connection, sweep_id)

    def retry(self, sweep: Sweep, *, user: str, now: datetime, trial_id: int | None = None) -> Sweep:
        """Make the sweep's FAILED and CANCELLED trials PENDING, as if they had never failed; an ended sweep QUEUED.

        trial_id: this one alone. The sweep's wish is to run, its lost drivers are forgotten. Raises StaleRow if
        somebody else moved it.
        """
        reason = f"retried by {user}"
        values: dict[str, Any] = {"version": sweep.version + 1, "wish": Wish.RUN, "losses": 0, "reason": reason}
        what = "asked to retry"
        if sweep.state in SWEEP_ENDS:
            check_sweep_move(sweep.state, SweepState.QUEUED, Actor.USER)
            values |= {"state": SweepState.QUEUED, "ended_at": None, "queued_at": now}
            what = f"{sweep.state} -> {SweepState.QUEUED}"
        guarded = sa.update(t.sweep).where(t.sweep.c.id == sweep.id, t.sweep.c.version == sweep.version)
        with self._database.write() as connection:
            if not connection.execute(guarded.values(values)).rowcount:
                raise _stale(sweep, _load_one(connection, sweep.id), SweepState.QUEUED)
            rows = lock_trials(connection, sweep.id, (TrialState.FAILED, TrialState.CANCELLED))
            rows = [row for row in rows if trial_id in (None, row.id)]
            moved = move_trials(
                connection, rows, TrialState.PENDING, actor=Actor.USER, reason=reason, now=now, failures=0
            )
            audit.write_events(connection, [audit.event(sweep.id, user, what, reason=reason, now=now), *moved])
            return _load_one(connection, sweep.id)

    def wish(self, sweep_id: int, wish: Wish, *, user: str, reason: str, now: datetime) -> Sweep:
        """Record what people want of a sweep, with its event. A wish for an ended sweep changes nothing.

        Nor does a wish that the sweep has already. Raises NotFound.
        """
        c = t.sweep.c
        statement = (
            sa.update(t.sweep)
            .where(c.id == sweep_id, c.state.not_in(SWEEP_ENDS), c.wish != wish)
            .values(wish=wish, version=c.version + 1)
        )
        with self._database.write() as connection:
            if connection.execute(statement).rowcount:
                asked = audit.event(sweep_id, user, f"asked to {wish}", reason=reason, now=now)
                audit.write_events(connection, [asked])
            return _load_one(connection, sweep_id)

    def events(self, *, sweep_id: int | None = None, after: int = 0, limit: int = 1000) -> list[Event]:
        """In order of id."""
        return self._events(after, limit, sa.true() if sweep_id is None else t.event.c.sweep_id == sweep_id)

    def events_of_no_sweep(self, *, after: int = 0, limit: int = 1000) -> list[Event]:
        """What was done with tokens and nodes, in order of id."""
        return self._events(after, limit, t.event.c.sweep_id.is_(None))

    def _events(self, after: int, limit: int, which: sa.ColumnElement[bool]) -> list[Event]:
        query = sa.select(t.event).where(t.event.c.id > after, which).order_by(t.event.c.id).limit(limit)
        with self._database.read() as connection:
            return [Event(**row) for row in connection.execute(query).mappings()]

    def counts(self, *, project: str | None = None) -> Mapping[SweepState, int]:
        """Number of sweeps by state, states without any included; of one project where that is given."""
        query = sa.select(t.sweep.c.state, sa.func.count().label("number")).group_by(t.sweep.c.state)
        if project is not None:
            query = query.join(t.project).where(t.project.c.name == project)
        with self._database.read() as connection:
            found = {row.state: row.number for row in connection.execute(query)}
        return {state: found.get(state, 0) for state in SweepState}

    def trial_counts(self, sweep_ids: Sequence[int]) -> Mapping[int, Mapping[TrialState, int]]:
        """Number of trials by sweep and state; only states that occur."""
        return {sweep_id: {} for sweep_id in sweep_ids} | self._trial_counts(t.trial.c.sweep_id.in_(sweep_ids))

    def open_trial_counts(self) -> Mapping[int, Mapping[TrialState, int]]:
        """The same of all sweeps that have not ended; only sweeps that have trials."""
        # Thousands of numbers in a statement would take longer to write and to read than the answer
        still = sa.select(t.sweep.c.id).where(t.sweep.c.state.not_in(SWEEP_ENDS))
        return self._trial_counts(t.trial.c.sweep_id.in_(still))

    def _trial_counts(self, which: sa.ColumnElement[bool]) -> dict[int, dict[TrialState, int]]:
        c = t.trial.c
        query = sa.select(c.sweep_id, c.state, sa.func.count().label("number")).where(which)
        counts: dict[int, dict[TrialState, int]] = defaultdict(dict)
        with self._database.read() as connection:
            for row in connection.execute(query.group_by(c.sweep_id, c.state)):
                counts[row.sweep_id][row.state] = row.number
        return dict(counts)


def _accepted(connection: sa.Connection, arrivals: Sequence[Arrival]) -> list[Recorded | OrchError]:
    answers, recorded = accept(connection, arrivals)
    others = {answer for answer in answers if isinstance(answer, int)} - set(recorded)
    if others:
        recorded |= _recorded(connection, others)
    return [recorded[answer] if isinstance(answer, int) else answer for answer in answers]


def _recorded(connection: sa.Connection, sweep_ids: Collection[int]) -> dict[int, Recorded]:
    trials: dict[int, list[Trial]] = defaultdict(list)
    ids = sa.select(t.trial.c.id).where(t.trial.c.sweep_id.in_(sweep_ids))
    for trial in sorted(load_trials(connection, ids), key=lambda trial: trial.number):
        trials[trial.sweep_id].append(trial)
    rows = connection.execute(_QUERY.where(t.sweep.c.id.in_(sweep_ids)))
    return {row.id: Recorded(_sweep(row), trials[row.id]) for row in rows}


def _move_values(
    sweep: Sweep, to: SweepState, *, reason: str, now: datetime, slots: int | None, ray_job_id: str | None
) -> dict[str, Any]:
    values: dict[str, Any] = {"state": to, "version": sweep.version + 1, "reason": reason}
    if sweep.state is SweepState.QUEUED:
        values["waited_s"] = sweep.waited_s + max((now - sweep.queued_at).total_seconds(), 0.0)
    if to is SweepState.QUEUED:
        values["queued_at"] = now
    if to is SweepState.STARTING:
        values |= {"attempt": sweep.attempt + 1, "started_at": sweep.started_at or now}
    if to not in (SweepState.STARTING, SweepState.RUNNING):
        values["slots"] = 0
    elif slots is not None:
        values["slots"] = slots
    if to in SWEEP_ENDS:
        values["ended_at"] = now
    if ray_job_id is not None:
        values["ray_job_id"] = ray_job_id
    return values


def _close(
    connection: sa.Connection, sweep: Sweep, to: SweepState, *, actor: Actor, reason: str, now: datetime
) -> list[dict[str, Any]]:
    """End the sweep's open trials and tell the outbox. Returns the events to write."""
    end = TrialState.CANCELLED if to is SweepState.CANCELLED else TrialState.FAILED
    rows = lock_trials(connection, sweep.id, OPEN)
    events = move_trials(connection, rows, end, actor=actor, reason=reason, now=now)
    items = [ended_item(row, end, reason=reason, now=now) for row in rows if row.attempt]
    if sweep.attempt:
        items.append(audit.item(Topic.SWEEP_ENDED, sweep.id, state=to, reason=reason, at=now.isoformat()))
    audit.write_outbox(connection, items)
    return events


def _before(sweep: Sweep, name: str) -> str:
    before = getattr(sweep, name)
    return "" if before is None else f"it was {before}"


def _load_one(connection: sa.Connection, sweep_id: int, *, lock: bool = False) -> Sweep:
    query = _QUERY.where(t.sweep.c.id == sweep_id)
    if lock:
        query = query.with_for_update(of=t.sweep)
    row = connection.execute(query).one_or_none() if is_id(sweep_id) else None
    if row is None:
        raise NotFound(f"no sweep {sweep_id}; `orch list` shows all sweeps with their ids")
    return _sweep(row)


def _stale(seen: Sweep, present: Sweep, to: SweepState) -> StaleRow:
    return StaleRow(
        f"sweep {seen.id} was not moved from {seen.state} to {to}: it was seen at version {seen.version} and is now at "
        f"version {present.version}, {present.state}, with the wish to {present.wish}; read it again and decide anew"
    )


def _as_marked(sweep: Sweep, mark: AnyRow) -> Sweep:
    if (sweep.reason, sweep.mlflow_run_id) == (mark.reason, mark.mlflow_run_id):
        return sweep
    return replace(sweep, reason=mark.reason, mlflow_run_id=mark.mlflow_run_id)


def _sweep(row: AnyRow) -> Sweep:
    return Sweep(
        id=row.id,
        name=row.name,
        project=row.project,
        user=row.submitter,
        state=row.state,
        version=row.version,
        wish=row.wish,
        priority=row.priority,
        metric=row.metric,
        goal=row.goal,
        spec=row.spec,
        source=row.source,
        slots=row.slots,
        attempt=row.attempt,
        reason=row.reason,
        ray_job_id=row.ray_job_id,
        mlflow_run_id=row.mlflow_run_id,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        losses=row.losses,
        queued_at=row.queued_at,
        waited_s=row.waited_s,
        max_concurrent=row.max_concurrent,
    )
