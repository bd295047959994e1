"""Every SQL statement on webhooks: how far the log was read for them, and the calls that have yet to arrive."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from orchestrator.lifecycle import TrialState
from orchestrator.records import Delivery, NewDelivery, Sweep, Trial
from orchestrator.store import schema as t
from orchestrator.store.database import Database, insert

BOOKMARK = "webhooks"


class SqlDeliveries:
    """`ports.Deliveries` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def bookmark(self) -> int:
        """Number of the last event that was read; at first the newest there is: nobody wants to hear of the past."""
        query = sa.select(t.bookmark.c.event_id).where(t.bookmark.c.name == BOOKMARK)
        with self._database.read() as connection:
            found = connection.execute(query).scalar_one_or_none()
        if found is not None:
            return int(found)
        newest = sa.select(sa.func.coalesce(sa.func.max(t.event.c.id), 0))
        with self._database.write() as connection:
            values = {"name": BOOKMARK, "event_id": connection.execute(newest).scalar_one()}
            connection.execute(insert(connection, t.bookmark).values(values).on_conflict_do_nothing())
            return int(connection.execute(query).scalar_one())

    def plan(self, deliveries: Sequence[NewDelivery], *, seen: int, upto: int, now: datetime) -> None:
        """Write calls down and move the bookmark from `seen` to `upto`, both or neither.

        Writes nothing where somebody else has moved it.
        """
        c = t.bookmark.c
        move = sa.update(t.bookmark).where(c.name == BOOKMARK, c.event_id == seen).values(event_id=upto)
        with self._database.write() as connection:
            if connection.execute(move).rowcount and deliveries:
                rows = [
                    {
                        "sweep_id": each.sweep_id,
                        "url": each.url,
                        "payload": dict(each.payload),
                        "tries": 0,
                        "due_at": now,
                    }
                    for each in deliveries
                ]
                connection.execute(sa.insert(t.delivery), rows)

    def due(self, *, now: datetime, limit: int) -> list[Delivery]:
        """Calls that are to be tried: the oldest of each URL, then the second of each, and so on."""
        c = t.delivery.c
        place = sa.func.row_number().over(partition_by=c.url, order_by=c.id).label("place")
        turns = sa.select(c.id, place).where(c.due_at <= now).order_by(place, c.id).limit(limit).subquery()
        query = sa.select(t.delivery).join(turns, turns.c.id == c.id).order_by(turns.c.place, c.id)
        with self._database.read() as connection:
            return [Delivery(**row) for row in connection.execute(query).mappings()]

    def put_off(self, delivery_id: int, *, tries: int, due_at: datetime) -> None:
        """Try again then."""
        statement = sa.update(t.delivery).where(t.delivery.c.id == delivery_id)
        with self._database.write() as connection:
            connection.execute(statement.values(tries=tries, due_at=due_at))

    def done(self, delivery_id: int) -> None:
        """It arrived, or never will."""
        with self._database.write() as connection:
            connection.execute(sa.delete(t.delivery).where(t.delivery.c.id == delivery_id))

    def size(self) -> int:
        """Calls that wait."""
        with self._database.read() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(t.delivery)).scalar_one()

    def is_best(self, trial: Trial, sweep: Sweep) -> bool:
        """Whether a trial's score is better than that of every trial of the sweep that ended before it."""
        if trial.score is None or trial.ended_at is None:
            return False
        c = t.trial.c
        extreme = sa.func.min(c.score) if sweep.goal == "minimize" else sa.func.max(c.score)
        ended_before = sa.or_(c.ended_at < trial.ended_at, sa.and_(c.ended_at == trial.ended_at, c.id < trial.id))
        query = sa.select(extreme).where(
            c.sweep_id == sweep.id,
            c.id != trial.id,
            c.state.in_((TrialState.SUCCEEDED, TrialState.STOPPED)),
            ended_before,
        )
        with self._database.read() as connection:
            best = connection.execute(query).scalar_one()
        if best is None:
            return True
        return bool(trial.score < best if sweep.goal == "minimize" else trial.score > best)
