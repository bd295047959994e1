"""Every SQL statement on what the policy has to know of the past."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from orchestrator.lifecycle import TrialState
from orchestrator.records import Pace, Usage
from orchestrator.store import schema as t
from orchestrator.store.database import Database, insert


class SqlLedger:
    """`ports.Ledger` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def paces(self, sweep_ids: Sequence[int]) -> Mapping[int, Pace]:
        """How fast each of these sweeps' trials go."""
        c = t.trial.c
        took_s = sa.extract("epoch", c.ended_at) - sa.extract("epoch", c.started_at)
        of = c.sweep_id.in_(sweep_ids)
        means = sa.select(c.sweep_id, sa.func.avg(took_s).label("trial_s")).where(of, c.state == TrialState.SUCCEEDED)
        running = sa.select(c.sweep_id, c.started_at).where(of, c.state == TrialState.RUNNING)
        since: dict[int, list[datetime]] = {sweep_id: [] for sweep_id in sweep_ids}
        with self._database.read() as connection:
            trial_s = {row.sweep_id: float(row.trial_s) for row in connection.execute(means.group_by(c.sweep_id))}
            for row in connection.execute(running):
                since[row.sweep_id].append(row.started_at)
        return {i: Pace(trial_s=trial_s.get(i), running_since=tuple(since[i])) for i in sweep_ids}

    def usage(self) -> list[Usage]:
        """Every account that ever held anything."""
        query = sa.select(t.usage, t.project.c.name).join(t.project).order_by(t.project.c.name, t.usage.c.submitter)
        with self._database.read() as connection:
            return [
                Usage(project=row.name, user=row.submitter, share=row.share, at=row.at)
                for row in connection.execute(query)
            ]

    def charge(self, usage: Sequence[Usage]) -> None:
        """Write these accounts anew. Accounts of projects that do not exist are left out."""
        if not usage:
            return
        with self._database.write() as connection:
            ids = {row.name: row.id for row in connection.execute(sa.select(t.project))}
            rows = [
                {"project_id": ids[each.project], "submitter": each.user, "share": each.share, "at": each.at}
                for each in usage
                if each.project in ids
            ]
            statement = insert(connection, t.usage)
            new = {"share": statement.excluded.share, "at": statement.excluded.at}
            if rows:
                connection.execute(
                    statement.on_conflict_do_update(index_elements=["project_id", "submitter"], set_=new), rows
                )
