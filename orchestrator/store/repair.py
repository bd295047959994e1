"""What is derived in the record, worked out anew from the points of the curves, and put right where it differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from orchestrator.aggregate import Aggregate
from orchestrator.lifecycle import SWEEP_ENDS, Actor, SweepState, TrialState
from orchestrator.store import audit
from orchestrator.store import schema as t
from orchestrator.store.database import AnyRow, Database
from orchestrator.store.scores import merged_curve
from orchestrator.store.trials import OPEN, ended_item, lock_trials, move_trials

REASON = "found open after its sweep had ended"
Summary = tuple[float, int, int, float, int]
"""last, last_attempt, last_step, best, best_step."""


class SqlRepair:
    """`ports.RepairStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def curves(self, trial_id: int, *, since: int = 0) -> Mapping[str, Mapping[int, float]]:
        """Value by step, by metric, of attempts from `since` on; where they overlap, the latest attempt's value."""
        c = t.metric_point.c
        query = sa.select(c.name, c.step, c.value).where(c.trial_id == trial_id, c.attempt >= since)
        query = query.order_by(c.attempt)
        found: dict[str, dict[int, float]] = {}
        with self._database.read() as connection:
            for row in connection.execute(query):
                found.setdefault(row.name, {})[row.step] = row.value
        return found

    def wrong(self, trial_id: int) -> list[str]:
        """What is not as the trial's points say, a sentence each."""
        with self._database.read() as connection:
            return _wrong(connection, trial_id)

    def recount(self, trial_id: int, *, user: str, now: datetime) -> None:
        """Write the trial's summaries, step and score as its points say, with an event."""
        with self._database.write() as connection:
            said = _wrong(connection, trial_id)
            if not said:
                return
            row, points = _row(connection, trial_id), _points(connection, trial_id)
            connection.execute(sa.delete(t.trial_metric).where(t.trial_metric.c.trial_id == trial_id))
            if summaries := _summaries(row, points):
                names = ("last", "last_attempt", "last_step", "best", "best_step")
                rows = [
                    {"trial_id": trial_id, "name": name, **dict(zip(names, each, strict=True))}
                    for name, each in summaries.items()
                ]
                connection.execute(sa.insert(t.trial_metric), rows)
            values: dict[str, Any] = {}
            if (latest := _latest(points)) > (row.step_attempt, row.step):
                values |= {"step_attempt": latest[0], "step": latest[1]}
            if (score := _score(connection, row)) is not None:
                values["score"] = score
            if values:
                connection.execute(sa.update(t.trial).where(t.trial.c.id == trial_id).values(values))
            repaired = audit.event(row.sweep_id, user, "repaired", reason="; ".join(said), now=now, trial_id=trial_id)
            audit.write_events(connection, [repaired])

    def left_open(self) -> list[tuple[int, int]]:
        """(sweep, trial) of trials without an end whose sweep has one."""
        query = sa.select(t.trial.c.sweep_id, t.trial.c.id).join(t.sweep)
        query = query.where(t.sweep.c.state.in_(SWEEP_ENDS), t.trial.c.state.in_(OPEN)).order_by(t.trial.c.id)
        with self._database.read() as connection:
            return [(row.sweep_id, row.id) for row in connection.execute(query)]

    def close(self, sweep_id: int, *, now: datetime) -> None:
        """End the open trials of a sweep that has ended, as its end should have."""
        with self._database.write() as connection:
            state = connection.execute(sa.select(t.sweep.c.state).where(t.sweep.c.id == sweep_id)).scalar_one()
            if state not in SWEEP_ENDS:
                return
            end = TrialState.CANCELLED if state is SweepState.CANCELLED else TrialState.FAILED
            rows = lock_trials(connection, sweep_id, OPEN)
            events = move_trials(connection, rows, end, actor=Actor.COORDINATOR, reason=REASON, now=now)
            items = [ended_item(row, end, reason=REASON, now=now) for row in rows if row.attempt]
            audit.write_outbox(connection, items)
            audit.write_events(connection, events)


def _wrong(connection: sa.Connection, trial_id: int) -> list[str]:
    row, points = _row(connection, trial_id), _points(connection, trial_id)
    right, there = _summaries(row, points), _stored(connection, trial_id)
    said = [
        f"the summary of {name} is {_told(there.get(name))}, and its points say {_told(right.get(name))}"
        for name in sorted({*right, *there})
        if right.get(name) != there.get(name)
    ]
    if (latest := _latest(points)) > (row.step_attempt, row.step):
        said.append(f"its step is {row.step}, and its points reach {latest[1]}")
    if (score := _score(connection, row)) is not None:
        said.append(f"its score is {row.score}, and its points say {score:.6g}")
    return said


def _row(connection: sa.Connection, trial_id: int) -> AnyRow:
    query = sa.select(t.trial, t.sweep.c.metric, t.sweep.c.goal, t.sweep.c.spec).join(t.sweep)
    return connection.execute(query.where(t.trial.c.id == trial_id)).one()


def _points(connection: sa.Connection, trial_id: int) -> Sequence[AnyRow]:
    c = t.metric_point.c
    return connection.execute(sa.select(c.name, c.attempt, c.step, c.value).where(c.trial_id == trial_id)).all()


def _stored(connection: sa.Connection, trial_id: int) -> dict[str, Summary]:
    c = t.trial_metric.c
    query = sa.select(c.name, c.last, c.last_attempt, c.last_step, c.best, c.best_step).where(c.trial_id == trial_id)
    return {row[0]: tuple(row[1:]) for row in connection.execute(query)}


def _summaries(row: AnyRow, points: Iterable[AnyRow]) -> dict[str, Summary]:
    """Last by (attempt, step); best by the sweep's goal, of other metrics the smallest; the first of equals."""
    by_name: dict[str, list[AnyRow]] = {}
    for point in points:
        by_name.setdefault(point.name, []).append(point)
    found: dict[str, Summary] = {}
    for name, own in by_name.items():
        sign = -1 if name == row.metric and row.goal == "maximize" else 1
        last = max(own, key=lambda point: (point.attempt, point.step))
        best = min(own, key=lambda point: (sign * point.value, point.step))
        found[name] = (last.value, last.attempt, last.step, best.value, best.step)
    return found


def _latest(points: Iterable[AnyRow]) -> tuple[int, int]:
    return max(((point.attempt, point.step) for point in points), default=(0, 0))


def _score(connection: sa.Connection, row: AnyRow) -> float | None:
    """What the score should be; None where it is right. One that a rewind left may stand for a part of the curve."""
    values = [value for _, value in merged_curve(connection, row.id, row.metric)]
    aggregate = Aggregate.of(row.spec, row.goal)
    if not values or any(aggregate.value(values[:count]) == row.score for count in range(len(values), 0, -1)):
        return None
    return None if row.score is None and row.state not in OPEN else aggregate.value(values)


def _told(summary: Summary | None) -> str:
    return f"last {summary[0]:.6g} at step {summary[2]}, best {summary[3]:.6g}" if summary else "not there"
