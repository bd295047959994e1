"""Writing events and outbox items: the last act of a transaction that moves a row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from orchestrator.records import Topic
from orchestrator.store import schema as t
from orchestrator.store.bulk import insert_rows

EVENTS_LOCK = 0x6F726365  # "orce" in ASCII; taken in PostgreSQL by whoever writes events


def event(
    sweep_id: int | None, actor: str, what: str, *, reason: str, now: datetime, trial_id: int | None = None
) -> dict[str, Any]:
    """A row for `write_events`. sweep_id: None for what belongs to no sweep."""
    return {
        "sweep_id": sweep_id,
        "trial_id": trial_id,
        "actor": actor,
        "what": what,
        "reason": reason,
        "at": now,
    }


def write_events(connection: sa.Connection, events: Sequence[dict[str, Any]]) -> None:
    """Append to the audit log. Call it last: from here to the commit, no other event can be written.

    Numbers thus appear in the order of commits, and who asks for all events after the last one seen misses none.
    """
    if not events:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(EVENTS_LOCK)))
    insert_rows(connection, t.event, events)


def item(topic: Topic, sweep_id: int, trial_id: int | None = None, **payload: Any) -> dict[str, Any]:
    """A row for `write_outbox`."""
    return {"topic": topic, "sweep_id": sweep_id, "trial_id": trial_id, "payload": payload}


def write_outbox(connection: sa.Connection, items: Sequence[dict[str, Any]]) -> None:
    """Append to the outbox, in this order."""
    insert_rows(connection, t.outbox, items)
