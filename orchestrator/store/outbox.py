"""Every SQL statement on the outbox and on the links to tracking runs."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from orchestrator.records import OutboxItem
from orchestrator.store import schema as t
from orchestrator.store.database import Database


class SqlOutbox:
    """`ports.Outbox` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def pending(self, limit: int = 1000) -> list[OutboxItem]:
        """Oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(t.outbox).order_by(t.outbox.c.id).limit(limit))
            return [
                OutboxItem(
                    id=row.id, topic=row.topic, sweep_id=row.sweep_id, trial_id=row.trial_id, payload=row.payload
                )
                for row in rows
            ]

    def sent(self, ids: Sequence[int]) -> None:
        """Forget items that arrived."""
        if not ids:
            return
        with self._database.write() as connection:
            connection.execute(sa.delete(t.outbox).where(t.outbox.c.id.in_(ids)))

    def size(self, sweep_id: int | None = None, *, project: str | None = None) -> int:
        """Items that wait; of one sweep or project where that is given."""
        query = sa.select(sa.func.count()).select_from(t.outbox)
        if sweep_id is not None:
            query = query.where(t.outbox.c.sweep_id == sweep_id)
        if project is not None:
            query = query.join(t.sweep).join(t.project).where(t.project.c.name == project)
        with self._database.read() as connection:
            return connection.execute(query).scalar_one()

    def link_sweep(self, sweep_id: int, mlflow_run_id: str) -> None:
        """Write the sweep's tracking run."""
        self._link(t.sweep, sweep_id, mlflow_run_id)

    def link_trial(self, trial_id: int, mlflow_run_id: str) -> None:
        """Write the trial's tracking run."""
        self._link(t.trial, trial_id, mlflow_run_id)

    def _link(self, table: sa.Table, id_: int, mlflow_run_id: str) -> None:
        with self._database.write() as connection:
            connection.execute(sa.update(table).where(table.c.id == id_).values(mlflow_run_id=mlflow_run_id))
