"""Wiring of a repair: the database, the trials' directories, and what reads checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.clock import SystemClock
from orchestrator.cluster.directories import Directories
from orchestrator.repair import Finding, Repair, Row
from orchestrator.settings import Settings
from orchestrator.store import open_store
from orchestrator.store.repair import SqlRepair
from workloads import checkpoint
from workloads.errors import CheckpointError


def mend(settings: Settings, reference: str | None, *, user: str, check: bool, found: Callable[[Finding], None]) -> int:
    """Look through one sweep or all, telling each finding as it is met; returns the number of sweeps looked through.

    Raises NotFound, Unreachable.
    """
    # A torn checkpoint is told as a finding
    logging.getLogger(checkpoint.__name__).setLevel(logging.ERROR)
    store = open_store(settings.database_url)
    try:
        sweeps = [store.sweeps.find_sweep(reference)] if reference else store.sweeps.sweeps(limit=1_000_000)
        repair = Repair(
            store.sweeps,
            store.trials,
            SqlRepair(store.database),
            history=rows_in,
            directory=Directories(settings, store.trials).checkpoints,
            clock=SystemClock(),
            user=user,
            check=check,
        )
        for sweep in reversed(sweeps):
            for finding in repair.sweep(sweep.id):
                found(finding)
        return len(sweeps)
    finally:
        store.close()


def rows_in(directory: Path) -> Sequence[Row]:
    """The rows in the newest whole checkpoint of a directory; none where there is no such file."""
    try:
        path = checkpoint.latest(directory)
        return checkpoint.load(path)["rows"] if path else []
    except CheckpointError:
        return []
