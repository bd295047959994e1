"""Giving planned trials the results of their project's trials with the same identity.

Inside the transaction that plans them. What another project has trained may be nothing that the submitter may see.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from orchestrator.lifecycle import Actor, TrialState
from orchestrator.records import Topic
from orchestrator.store import audit
from orchestrator.store import schema as t
from orchestrator.store.database import AnyRow
from orchestrator.store.scores import score_anew

CHANGED = ("state", "shared_from", "reason", "ended_at")
COPIED = ("step", "step_attempt", "checkpoint_path", "params_count", "active_params", "flops_per_token")


def share_results(connection: sa.Connection, sweep_id: int, *, now: datetime) -> list[dict[str, Any]]:
    """Each PENDING trial of the sweep whose identity has a result in its project becomes SUCCEEDED with its curves.

    The tracker is told its last metrics and its end. Returns the events to write.
    """
    pairs = _pairs(connection, sweep_id)
    if not pairs:
        return []
    connection.execute(
        sa.update(t.trial)
        .where(t.trial.c.id == sa.bindparam("of"))
        .values({name: sa.bindparam(f"new_{name}") for name in (*COPIED, *CHANGED)}),
        [
            {
                "of": pair.new_id,
                **{f"new_{name}": getattr(pair, name) for name in COPIED},
                "new_state": TrialState.SUCCEEDED,
                "new_shared_from": pair.id,
                "new_reason": _reason(pair),
                "new_ended_at": now,
            }
            for pair in pairs
        ],
    )
    for table in (t.metric_point, t.trial_metric):
        _copy(connection, table, sweep_id)
    _rank_anew(connection, sweep_id, pairs)
    score_anew(connection, [pair.new_id for pair in pairs])
    audit.write_outbox(connection, _items(connection, sweep_id, pairs, now))
    return [
        audit.event(
            sweep_id, Actor.COORDINATOR, f"shared from {pair.id}", reason=_reason(pair), now=now, trial_id=pair.new_id
        )
        for pair in pairs
    ]


def _pairs(connection: sa.Connection, sweep_id: int) -> Sequence[AnyRow]:
    """The trials that have a result, with the sweep that it is of, and the id of the trial that gets it."""
    new, mine = t.trial.alias("new"), t.sweep.alias("mine")
    query = (
        sa.select(
            new.c.id.label("new_id"),
            t.trial.c.id,
            t.trial.c.sweep_id,
            *(t.trial.c[name] for name in COPIED),
            t.sweep.c.metric,
            t.sweep.c.goal,
        )
        .select_from(new)
        .join(mine, mine.c.id == new.c.sweep_id)
        .join(t.result, sa.and_(t.result.c.identity == new.c.identity, t.result.c.project_id == mine.c.project_id))
        .join(t.trial, t.trial.c.id == t.result.c.trial_id)
        .join(t.sweep, t.sweep.c.id == t.trial.c.sweep_id)
        .where(new.c.sweep_id == sweep_id, new.c.state == TrialState.PENDING)
        .order_by(new.c.number)
    )
    return connection.execute(query).all()


def _copy(connection: sa.Connection, table: sa.Table, sweep_id: int) -> None:
    columns = [column for column in table.c if column.name != "trial_id"]
    rows = sa.select(t.trial.c.id, *columns).join(t.trial, t.trial.c.shared_from == table.c.trial_id)
    names = ["trial_id", *(column.name for column in columns)]
    connection.execute(sa.insert(table).from_select(names, rows.where(t.trial.c.sweep_id == sweep_id)))


def _rank_anew(connection: sa.Connection, sweep_id: int, pairs: Sequence[AnyRow]) -> None:
    """Which value of a metric is the best hangs on the sweep's own metric and goal."""
    here = connection.execute(sa.select(t.sweep.c.metric, t.sweep.c.goal).where(t.sweep.c.id == sweep_id)).one()
    for pair in pairs:
        for name in {here.metric, pair.metric}:
            largest = name == here.metric and here.goal == "maximize"
            if largest == (name == pair.metric and pair.goal == "maximize"):
                continue
            point = t.metric_point.c
            order = (point.value.desc() if largest else point.value.asc(), point.step)
            mine = sa.select(point.value, point.step).where(point.trial_id == pair.new_id, point.name == name)
            best = connection.execute(mine.order_by(*order).limit(1)).one_or_none()
            if best is not None:
                statement = sa.update(t.trial_metric).where(
                    t.trial_metric.c.trial_id == pair.new_id, t.trial_metric.c.name == name
                )
                connection.execute(statement.values(best=best.value, best_step=best.step))


def _items(connection: sa.Connection, sweep_id: int, pairs: Sequence[AnyRow], now: datetime) -> list[dict[str, Any]]:
    query = sa.select(t.trial_metric).join(t.trial).where(t.trial.c.sweep_id == sweep_id)
    metrics: dict[int, dict[str, float]] = defaultdict(dict)
    for row in connection.execute(query.where(t.trial.c.shared_from.is_not(None))):
        metrics[row.trial_id][row.name] = row.last
    items = []
    for pair in pairs:
        told = {"attempt": pair.step_attempt, "at": now.isoformat()}
        items += [
            audit.item(Topic.REPORT, sweep_id, pair.new_id, **told, step=pair.step, metrics=metrics[pair.new_id]),
            audit.item(
                Topic.TRIAL_ENDED, sweep_id, pair.new_id, **told, state=TrialState.SUCCEEDED, reason=_reason(pair)
            ),
        ]
    return items


def _reason(pair: AnyRow) -> str:
    return f"shared from trial {pair.id} of sweep {pair.sweep_id}: the same configuration, seed, code and data"
