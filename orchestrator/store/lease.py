"""Every SQL statement on the lease: who acts, and the fence that keeps everybody else's writes out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

from orchestrator.errors import LeaseLost
from orchestrator.records import Lease
from orchestrator.store import schema as t
from orchestrator.store.database import Database, insert

COORDINATOR = "coordinator"


class SqlLease:
    """`ports.LeaseStore` on SQL. No statement asks for the time: a row that is renewed changes, whoever's clock is
    wrong.
    """

    def __init__(self, database: Database, name: str = COORDINATOR) -> None:
        self._database, self._name = database, name

    def see(self) -> Lease:
        """As it is now; number 0 before anybody held it."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(t.lease).where(t.lease.c.name == self._name)).one_or_none()
        return Lease(holder=row.holder, number=row.number, renewals=row.renewals) if row else Lease("", 0, 0)

    def take(self, seen: Lease, holder: str, *, now: datetime) -> Lease | None:
        """Hold it under the next number, if it is still as `seen`; None if somebody was faster."""
        taken = Lease(holder, seen.number + 1, 0)
        values = {"holder": holder, "number": taken.number, "renewals": 0, "renewed_at": now}
        c = t.lease.c
        free = sa.and_(c.number == seen.number, c.renewals == seen.renewals)
        with self._database.write() as connection:
            first = insert(connection, t.lease).values(name=self._name, **values).on_conflict_do_nothing()
            later = sa.update(t.lease).where(c.name == self._name, free).values(values)
            done = connection.execute((later if seen.number else first).returning(c.number)).one_or_none()
        return taken if done else None

    def renew(self, number: int, *, now: datetime) -> bool:
        """Show that the holder of this number lives; whether it still holds it."""
        c = t.lease.c
        mine = sa.update(t.lease).where(c.name == self._name, c.number == number)
        with self._database.write() as connection:
            return bool(connection.execute(mine.values(renewals=c.renewals + 1, renewed_at=now)).rowcount)

    def release(self, number: int) -> None:
        """Let the next one have it at once. The number stays, so that it is never given twice."""
        c = t.lease.c
        with self._database.write() as connection:
            connection.execute(sa.update(t.lease).where(c.name == self._name, c.number == number).values(holder=""))

    def confirm(self, number: int) -> None:
        """Raises LeaseLost unless this number holds it."""
        with self._database.read() as connection:
            self._check(connection, number)

    def fence(self, number: Callable[[], int]) -> Database:
        """The database for one who may write only while it holds the lease.

        Every transaction that writes looks at the lease first, and nobody can take that before its end.
        """
        return self._database.guarded(lambda connection: self._check(connection, number()))

    def _check(self, connection: sa.Connection, number: int) -> None:
        c = t.lease.c
        held = sa.select(c.number).where(c.name == self._name, c.number == number).with_for_update(read=True)
        if connection.execute(held).one_or_none() is None:
            raise LeaseLost(f"this coordinator, number {number}, acts no longer: another one took over")
