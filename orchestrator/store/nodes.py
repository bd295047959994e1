"""Every SQL statement on nodes that are drained."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from orchestrator.store import schema as t
from orchestrator.store.database import Database, insert


class SqlNodes:
    """`ports.NodeStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def drain(self, node_id: str, *, user: str, now: datetime) -> None:
        """Nothing is to run there. Safe to repeat."""
        with self._database.write() as connection:
            statement = insert(connection, t.drained).values(node_id=node_id, by=user, at=now)
            connection.execute(statement.on_conflict_do_nothing())

    def undrain(self, node_id: str) -> None:
        """It may be used again. Safe to repeat."""
        with self._database.write() as connection:
            connection.execute(sa.delete(t.drained).where(t.drained.c.node_id == node_id))

    def drained(self) -> frozenset[str]:
        """Ids of all of them."""
        with self._database.read() as connection:
            return frozenset(connection.execute(sa.select(t.drained.c.node_id)).scalars())
