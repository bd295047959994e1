"""What the tracker is told of reports: of each step, once, whatever attempt says it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from orchestrator.records import Report, Topic
from orchestrator.store import audit
from orchestrator.store import schema as t
from orchestrator.store.database import AnyRow


def report_items(
    connection: sa.Connection, fresh: Sequence[Report], sweeps: Mapping[int, AnyRow]
) -> Iterator[dict[str, Any]]:
    """Outbox items for reports whose points were just inserted; what was told before is left out.

    A trial that resumes reports the step of its checkpoint again, and trains again what lay behind that: trackers keep
    every point they are sent, and a curve with a step twice would tell of a loss that was none.
    """
    for report in fresh:
        told = _told(connection, report) if report.attempt > 1 else {}
        metrics = {name: value for name, value in report.metrics.items() if told.get(name) != value}
        if metrics:
            yield audit.item(
                Topic.REPORT,
                sweeps[report.trial_id].id,
                report.trial_id,
                attempt=report.attempt,
                step=report.step,
                metrics=metrics,
                at=report.at.isoformat(),
            )


def _told(connection: sa.Connection, report: Report) -> dict[str, float]:
    """By metric, what the latest of the earlier attempts that came to this step said there."""
    c = t.metric_point.c
    # Attempts and names in full: the primary key is sought, and no curve is read
    query = sa.select(c.name, c.value).where(
        c.trial_id == report.trial_id,
        c.name.in_(report.metrics),
        c.attempt.in_(range(1, report.attempt)),
        c.step == report.step,
    )
    return {row.name: row.value for row in connection.execute(query.order_by(c.attempt))}
