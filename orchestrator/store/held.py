"""How long trials held their places, from the moves that the audit log keeps."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from orchestrator.lifecycle import TrialState
from orchestrator.store import schema as t

STARTS = f"-> {TrialState.RUNNING}"
LEAVES = f"{TrialState.RUNNING} -> "


def held_s(connection: sa.Connection, sweep_id: int) -> float:
    """Seconds, added up over all attempts of a sweep's trials that are over.

    An attempt that was cut off with its driver counts until the next driver took over.
    """
    c = t.event.c
    moves = sa.select(c.trial_id, c.what, c.at).where(c.sweep_id == sweep_id, c.trial_id.is_not(None))
    moves = moves.where(sa.or_(c.what.endswith(STARTS), c.what.startswith(LEAVES))).order_by(c.id)
    since: dict[int, datetime] = {}
    total = 0.0
    for row in connection.execute(moves):
        if row.what.endswith(STARTS):
            since[row.trial_id] = row.at
        elif row.trial_id in since:
            total += max((row.at - since.pop(row.trial_id)).total_seconds(), 0.0)
    return total
