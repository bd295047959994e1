"""Every SQL statement on nodes that are drained."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from orchestrator.store import audit
from orchestrator.store import schema as t
from orchestrator.store.database import Database, insert


class SqlNodes:
    """`ports.NodeStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def drain(self, node_id: str, *, name: str, user: str, now: datetime) -> None:
        """Nothing is to run there. Safe to repeat. name: for people."""
        with self._database.write() as connection:
            statement = insert(connection, t.drained).values(node_id=node_id, by=user, at=now).on_conflict_do_nothing()
            if connection.execute(statement.returning(t.drained.c.node_id)).one_or_none():
                drained = audit.event(None, user, f"drained node {name}", reason=f"its id is {node_id}", now=now)
                audit.write_events(connection, [drained])

    def undrain(self, node_id: str, *, name: str, user: str, now: datetime) -> None:
        """It may be used again. Safe to repeat."""
        with self._database.write() as connection:
            statement = sa.delete(t.drained).where(t.drained.c.node_id == node_id)
            if connection.execute(statement.returning(t.drained.c.node_id)).one_or_none():
                back = audit.event(None, user, f"undrained node {name}", reason=f"its id is {node_id}", now=now)
                audit.write_events(connection, [back])

    def drained(self) -> frozenset[str]:
        """Ids of all of them."""
        with self._database.read() as connection:
            return frozenset(connection.execute(sa.select(t.drained.c.node_id)).scalars())
