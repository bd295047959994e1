"""`trial_metric`: the last and the best value of every metric, kept up to date with the reports."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from orchestrator.records import Report
from orchestrator.store import schema as t
from orchestrator.store.database import AnyRow, insert_in


def summarise(connection: sa.Connection, fresh: Sequence[Report], sweeps: Mapping[int, AnyRow]) -> None:
    """Bring `trial_metric` up to date: last by (attempt, step); best by the goal, the first of equals."""
    rows: dict[bool, dict[tuple[int, str], dict[str, Any]]] = {False: {}, True: {}}
    for report in fresh:
        sweep = sweeps[report.trial_id]
        for name, value in report.metrics.items():
            maximize = name == sweep.metric and sweep.goal == "maximize"
            new = {
                "trial_id": report.trial_id,
                "name": name,
                "last": value,
                "last_attempt": report.attempt,
                "last_step": report.step,
                "best": value,
                "best_step": report.step,
            }
            key = (report.trial_id, name)
            rows[maximize][key] = _merged(rows[maximize].get(key), new, maximize)
    for maximize, summaries in rows.items():
        if summaries:
            connection.execute(
                _upsert_summary(connection.dialect.name, maximize), [summaries[key] for key in sorted(summaries)]
            )


def _merged(old: dict[str, Any] | None, new: dict[str, Any], maximize: bool) -> dict[str, Any]:
    if old is None:
        return new
    sign = -1 if maximize else 1
    last = max(old, new, key=lambda row: (row["last_attempt"], row["last_step"]))
    best = min(old, new, key=lambda row: (sign * row["best"], row["best_step"]))
    return {**last, "best": best["best"], "best_step": best["best_step"]}


@functools.cache  # to put it together took a third of the time of recording a report
def _upsert_summary(dialect: str, maximize: bool) -> sa.Executable:
    statement = insert_in(dialect, t.trial_metric)
    old, new = t.trial_metric.c, statement.excluded
    newer = sa.tuple_(new.last_attempt, new.last_step) > sa.tuple_(old.last_attempt, old.last_step)
    better = sa.or_(
        new.best > old.best if maximize else new.best < old.best,
        sa.and_(new.best == old.best, new.best_step < old.best_step),
    )
    return statement.on_conflict_do_update(
        index_elements=["trial_id", "name"],
        set_={
            **{name: sa.case((newer, new[name]), else_=old[name]) for name in ("last", "last_attempt", "last_step")},
            **{name: sa.case((better, new[name]), else_=old[name]) for name in ("best", "best_step")},
        },
    )
