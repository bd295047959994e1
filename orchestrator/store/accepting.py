"""Recording submitted sweeps, as many as come together, in a handful of statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from orchestrator.errors import Conflict, OrchError
from orchestrator.lifecycle import SweepState, Wish
from orchestrator.records import NewSweep, NewTrial, Once, Recorded, Sweep
from orchestrator.sealing import SEALED, seal_of
from orchestrator.store import audit
from orchestrator.store import schema as t
from orchestrator.store.bulk import insert_many, insert_rows
from orchestrator.store.database import insert
from orchestrator.store.sharing import share_results
from orchestrator.store.trials import insert_trials, planned_trial


@dataclass(frozen=True, slots=True)
class Arrival:
    """A sweep that was submitted."""

    sweep: NewSweep
    trials: Sequence[NewTrial]
    now: datetime
    once: Once | None


def accept(connection: sa.Connection, arrivals: Sequence[Arrival]) -> tuple[list[int | OrchError], dict[int, Recorded]]:
    """Numbers of the sweeps, new ones in order of arrival; that of the sweep that is there for a key that was used.

    A Conflict in its place for a key that came with other content. Besides, by number, the new ones that share no
    results: as they would be read.
    """
    submitted = _submitted(connection, [arrival.once.key for arrival in arrivals if arrival.once])
    fresh: dict[int, Arrival] = {}
    keys = set(submitted)
    for place, arrival in enumerate(arrivals):
        if arrival.once is None or arrival.once.key not in keys:
            fresh[place] = arrival
            keys |= {arrival.once.key} if arrival.once else set()
    ids, recorded = _record(connection, list(fresh.values()))
    numbers = dict(zip(fresh, ids, strict=True))
    submitted |= {each.once.key: (each.once.content, numbers[place]) for place, each in fresh.items() if each.once}
    answers = [
        numbers[place] if place in numbers else _again(arrival.once, submitted)
        for place, arrival in enumerate(arrivals)
    ]
    return answers, recorded


def _submitted(connection: sa.Connection, keys: Sequence[str]) -> dict[str, tuple[str, int]]:
    if not keys:
        return {}
    rows = connection.execute(sa.select(t.submission).where(t.submission.c.key.in_(keys)))
    return {row.key: (row.content, row.sweep_id) for row in rows}


def _again(once: Once | None, submitted: Mapping[str, tuple[str, int]]) -> int | OrchError:
    assert once is not None
    content, sweep_id = submitted[once.key]
    if content == once.content:
        return sweep_id
    return Conflict(f"this idempotency key submitted another file before, as sweep {sweep_id}; take a new key.")


def _record(connection: sa.Connection, arrivals: Sequence[Arrival]) -> tuple[list[int], dict[int, Recorded]]:
    """Numbers of the new sweeps; and those that share no results, and so are as they were planned."""
    if not arrivals:
        return [], {}
    projects = _projects(connection, {arrival.sweep.project for arrival in arrivals})
    rows = [_row(arrival, projects[arrival.sweep.project]) for arrival in arrivals]
    ids = [id for id in insert_many(connection, t.sweep, rows) if id is not None]
    trial_ids = insert_trials(connection, [(id, arrival.trials) for id, arrival in zip(ids, arrivals, strict=True)])
    keyed = [
        {"key": arrival.once.key, "content": arrival.once.content, "sweep_id": id}
        for id, arrival in zip(ids, arrivals, strict=True)
        if arrival.once
    ]
    insert_rows(connection, t.submission, keyed)
    events = [
        event for id, arrival in zip(ids, arrivals, strict=True) for event in _first_events(connection, id, arrival)
    ]
    audit.write_events(connection, events)
    recorded = {
        id: Recorded(
            _planned_sweep(id, arrival),
            [
                planned_trial(trial_ids[id, trial.number], id, trial)
                for trial in sorted(arrival.trials, key=lambda each: each.number)
            ],
        )
        for id, arrival in zip(ids, arrivals, strict=True)
        if not _may_share(arrival)
    }
    return ids, recorded


def _projects(connection: sa.Connection, names: set[str]) -> dict[str, int]:
    query = sa.select(t.project.c.name, t.project.c.id).where(t.project.c.name.in_(names))
    found = {row.name: row.id for row in connection.execute(query)}
    missing = sorted(names - set(found))
    if missing:
        connection.execute(insert(connection, t.project).on_conflict_do_nothing(), [{"name": name} for name in missing])
        found = {row.name: row.id for row in connection.execute(query)}
    return found


def _row(arrival: Arrival, project_id: int) -> dict[str, Any]:
    sweep = arrival.sweep
    return {
        "project_id": project_id,
        "name": sweep.name,
        "submitter": sweep.user,
        "state": SweepState.QUEUED,
        "version": 1,
        "wish": Wish.RUN,
        "priority": sweep.priority,
        "metric": sweep.metric,
        "goal": sweep.goal,
        "spec": dict(sweep.spec),
        "source": sweep.source,
        "slots": 0,
        "attempt": 0,
        "reason": "",
        "created_at": arrival.now,
        "losses": 0,
        "queued_at": arrival.now,
        "waited_s": 0.0,
    }


def _planned_sweep(sweep_id: int, arrival: Arrival) -> Sweep:
    """A sweep that was just inserted, as it would be read."""
    sweep = arrival.sweep
    return Sweep(
        id=sweep_id,
        name=t.storable(sweep.name),
        project=t.storable(sweep.project),
        user=t.storable(sweep.user),
        state=SweepState.QUEUED,
        version=1,
        wish=Wish.RUN,
        priority=sweep.priority,
        metric=t.storable(sweep.metric),
        goal=sweep.goal,
        spec=sweep.spec,
        source=t.storable(sweep.source),
        slots=0,
        attempt=0,
        reason="",
        ray_job_id=None,
        mlflow_run_id=None,
        created_at=arrival.now,
        started_at=None,
        ended_at=None,
        losses=0,
        queued_at=arrival.now,
        waited_s=0.0,
        max_concurrent=None,
    )


def _may_share(arrival: Arrival) -> bool:
    return any(trial.identity is not None for trial in arrival.trials)


def _first_events(connection: sa.Connection, sweep_id: int, arrival: Arrival) -> list[dict[str, Any]]:
    sweep, trials, now = arrival.sweep, arrival.trials, arrival.now
    shared = share_results(connection, sweep_id, now=now) if _may_share(arrival) else []
    reason = f"{len(trials)} trials planned" if len(trials) != 1 else "1 trial planned"
    submitted = audit.event(sweep_id, sweep.user, "submitted", reason=reason, now=now)
    seal = seal_of(sweep.spec, sweep.name, now)
    sealed = [audit.event(sweep_id, sweep.user, SEALED, reason=seal, now=now)] if seal else []
    return [*sealed, submitted, *shared]
