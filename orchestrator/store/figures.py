"""Every SQL statement on what operators watch: how much waits, how long it waited, what failed and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from orchestrator.lifecycle import SweepState, TrialState
from orchestrator.records import Waits
from orchestrator.store import schema as t
from orchestrator.store.database import Database

MOST_REASONS = 1000


class SqlFigures:
    """`ports.Figures` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def trial_states(self) -> Mapping[TrialState, int]:
        """Number of trials by state, states without any included."""
        query = sa.select(t.trial.c.state, sa.func.count().label("number")).group_by(t.trial.c.state)
        with self._database.read() as connection:
            found = {row.state: row.number for row in connection.execute(query)}
        return {state: found.get(state, 0) for state in TrialState}

    def waits(self, bounds_s: Sequence[float]) -> Waits:
        """How long sweeps that have started had waited in the queue, and since when the longest waiting one waits."""
        c = t.sweep.c
        counts = [sa.func.coalesce(sa.func.sum(sa.case((c.waited_s <= bound, 1), else_=0)), 0) for bound in bounds_s]
        started = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(c.waited_s), 0.0), *counts).where(
            c.attempt > 0
        )
        oldest = sa.select(sa.func.min(c.queued_at)).where(c.state == SweepState.QUEUED)
        with self._database.read() as connection:
            number, total_s, *within = connection.execute(started).one()
            since: datetime | None = connection.execute(oldest).scalar_one()
        return Waits(number=number, total_s=float(total_s), within=tuple(within), oldest_since=since)

    def failures(self) -> Mapping[str, int]:
        """Number of failed trials by reason; the most frequent reasons."""
        query = sa.select(t.trial.c.reason, sa.func.count().label("number")).where(t.trial.c.state == TrialState.FAILED)
        query = query.group_by(t.trial.c.reason).order_by(sa.desc("number")).limit(MOST_REASONS)
        with self._database.read() as connection:
            return {row.reason: row.number for row in connection.execute(query)}

    def lost_drivers(self) -> int:
        """Drivers that open sweeps have lost since one last stopped in order."""
        with self._database.read() as connection:
            return int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(t.sweep.c.losses), 0))).scalar_one())
