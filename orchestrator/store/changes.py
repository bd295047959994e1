"""What live streams ask again and again: cheap signs of change, and the rows behind them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from orchestrator.records import Trial, TrialMark
from orchestrator.store import schema as t
from orchestrator.store.database import Database
from orchestrator.store.trials import load_trials

# A configuration never changes, and is most of a row
_COLUMNS = [column for column in t.trial.c if column.name != "config"]


class SqlChanges:
    """`ports.Changes` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def newest_event(self, sweep_id: int) -> int:
        """Number of the sweep's newest event; 0 where there is none."""
        query = sa.select(sa.func.max(t.event.c.id)).where(t.event.c.sweep_id == sweep_id)
        with self._database.read() as connection:
            return connection.execute(query).scalar_one() or 0

    def marks(self, sweep_id: int) -> Mapping[int, TrialMark]:
        """A mark of each trial, by number of row, that differs once anything about the trial does."""
        query = sa.select(*_COLUMNS).where(t.trial.c.sweep_id == sweep_id)
        with self._database.read() as connection:
            return {row.id: TrialMark(row.state, _plain(row)) for row in connection.execute(query)}

    def trials(self, ids: Collection[int]) -> list[Trial]:
        """These trials, in order of number."""
        with self._database.read() as connection:
            found = load_trials(connection, sa.select(t.trial.c.id).where(t.trial.c.id.in_(ids)))
        return sorted(found, key=lambda trial: trial.number)


def _plain(row: sa.Row[Any]) -> tuple[str, ...]:
    return tuple(map(str, row))
