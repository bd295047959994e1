"""`trial.score`: what ranks a trial, kept up to date with its reports in the same transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from orchestrator.aggregate import Aggregate
from orchestrator.records import Report
from orchestrator.store import schema as t
from orchestrator.store.database import AnyRow

LAST_STEP = 2**63 - 1


def update_scores(connection: sa.Connection, fresh: Sequence[Report], sweeps: Mapping[int, AnyRow]) -> None:
    """Score anew the trials whose ranking metric has new points; `trial_metric` is up to date already.

    Args:
        sweeps: by trial, a row with metric, goal and spec of its sweep.
    """
    for trial_id in sorted({each.trial_id for each in fresh if sweeps[each.trial_id].metric in each.metrics}):
        sweep = sweeps[trial_id]
        score = _score(connection, trial_id, sweep.metric, Aggregate.of(sweep.spec, sweep.goal))
        connection.execute(sa.update(t.trial).where(t.trial.c.id == trial_id).values(score=score))


def score_anew(connection: sa.Connection, trial_ids: Sequence[int]) -> None:
    """Score trials whose points came from elsewhere."""
    for trial_id in trial_ids:
        score = score_until(connection, trial_id, LAST_STEP)
        connection.execute(sa.update(t.trial).where(t.trial.c.id == trial_id).values(score=score))


def score_until(connection: sa.Connection, trial_id: int, step: int | None) -> float | None:
    """The score of a trial's reports up to a step; None where there are none, or no step is given."""
    query = sa.select(t.sweep.c.metric, t.sweep.c.goal, t.sweep.c.spec).join(t.trial)
    sweep = connection.execute(query.where(t.trial.c.id == trial_id)).one()
    curve = merged_curve(connection, trial_id, sweep.metric)
    values = [value for at, value in curve if step is not None and at <= step]
    return Aggregate.of(sweep.spec, sweep.goal).value(values) if values else None


def merged_curve(
    connection: sa.Connection, trial_id: int, metric: str, attempts: range | None = None
) -> list[tuple[int, float]]:
    """(step, value) of a trial's curve, or of some attempts alone; where they overlap, the latest one's value."""
    point = t.metric_point.c
    query = sa.select(point.step, point.value).where(point.trial_id == trial_id, point.name == metric)
    if attempts is not None:
        query = query.where(point.attempt >= attempts.start, point.attempt < attempts.stop)
    latest: dict[int, float] = {row.step: row.value for row in connection.execute(query.order_by(point.attempt))}
    return sorted(latest.items())


def _score(connection: sa.Connection, trial_id: int, metric: str, aggregate: Aggregate) -> float:
    if aggregate.how == "mean_last_k":
        return aggregate.value([value for _, value in merged_curve(connection, trial_id, metric)])
    column = t.trial_metric.c.best if aggregate.how == "best" else t.trial_metric.c.last
    query = sa.select(column).where(t.trial_metric.c.trial_id == trial_id, t.trial_metric.c.name == metric)
    return float(connection.execute(query).scalar_one())
