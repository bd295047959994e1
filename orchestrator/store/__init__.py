"""The record: sweeps, trials, reports, events and the outbox, in SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.ports import (
    BoardStore,
    Changes,
    Deliveries,
    Figures,
    LeaseStore,
    Ledger,
    NodeStore,
    Outbox,
    SweepStore,
    TokenStore,
    TrialStore,
)
from orchestrator.store.board import SqlBoard
from orchestrator.store.changes import SqlChanges
from orchestrator.store.database import Database, Took
from orchestrator.store.deliveries import SqlDeliveries
from orchestrator.store.figures import SqlFigures
from orchestrator.store.lease import SqlLease
from orchestrator.store.ledger import SqlLedger
from orchestrator.store.migrate import upgrade
from orchestrator.store.nodes import SqlNodes
from orchestrator.store.outbox import SqlOutbox
from orchestrator.store.sweeps import SqlSweeps
from orchestrator.store.tokens import SqlTokens
from orchestrator.store.trials import SqlTrials

__all__ = ["Store", "fenced", "open_store"]


@dataclass(frozen=True, slots=True)
class Store:
    """All of the record, one part a port; safe to share between threads, not between processes."""

    database: Database
    sweeps: SweepStore
    trials: TrialStore
    outbox: Outbox
    board: BoardStore
    ledger: Ledger
    tokens: TokenStore
    lease: LeaseStore
    changes: Changes
    deliveries: Deliveries
    figures: Figures
    nodes: NodeStore

    def close(self) -> None:
        """Give all connections back."""
        self.database.close()


def fenced(store: Store, number: Callable[[], int]) -> Store:
    """The same record for one who may write only while the lease is held under `number()`.

    Whatever it writes otherwise raises LeaseLost, and nothing is written.
    """
    return _on(SqlLease(store.database).fence(number))


def open_store(url: str, took: Took | None = None) -> Store:
    """Open the database at a SQLAlchemy URL, making it (mode 0600, with its directory) or upgrading it where needed.

    took: told "read" or "write" and the seconds of every transaction.

    Raises BadInput for a URL that orch cannot use, Unreachable if the database does not answer, OrchError if a newer
    orch made it.
    """
    upgrade(url)
    return _on(Database(url, took=took))


def _on(database: Database) -> Store:
    return Store(
        database=database,
        sweeps=SqlSweeps(database),
        trials=SqlTrials(database),
        outbox=SqlOutbox(database),
        board=SqlBoard(database),
        ledger=SqlLedger(database),
        tokens=SqlTokens(database),
        lease=SqlLease(database),
        changes=SqlChanges(database),
        deliveries=SqlDeliveries(database),
        figures=SqlFigures(database),
        nodes=SqlNodes(database),
    )
