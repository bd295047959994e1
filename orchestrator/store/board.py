"""The leaderboard's reading: trials with a result, across sweeps."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from orchestrator.lifecycle import TrialState
from orchestrator.records import Trial
from orchestrator.store import schema as t
from orchestrator.store.database import Database
from orchestrator.store.trials import load_trials


class SqlBoard:
    """`ports.BoardStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def board_trials(
        self,
        *,
        project: str | None = None,
        sweep_id: int | None = None,
        states: Sequence[TrialState] = (TrialState.SUCCEEDED, TrialState.STOPPED),
        limit: int = 10_000,
    ) -> list[Trial]:
        """Trials in these states that have reported at least once, newest first."""
        ids = sa.select(t.trial.c.id).where(
            t.trial.c.state.in_(states),
            sa.exists().where(t.trial_metric.c.trial_id == t.trial.c.id),
        )
        if sweep_id is not None:
            ids = ids.where(t.trial.c.sweep_id == sweep_id)
        if project is not None:
            of_project = sa.select(t.sweep.c.id).join(t.project).where(t.project.c.name == project)
            ids = ids.where(t.trial.c.sweep_id.in_(of_project))
        with self._database.read() as connection:
            found = load_trials(connection, ids.order_by(t.trial.c.id.desc()).limit(limit))
        return sorted(found, key=lambda trial: trial.id, reverse=True)
