"""Wiring of a sweep's driver, which runs inside a Ray job."""

from __future__ import annotations

import logging

from orchestrator.cluster.driver import drive as run
from orchestrator.settings import Settings
from orchestrator.store import open_store


def drive(sweep_id: int, settings: Settings) -> int:
    """Drive one sweep to its end; returns the process's exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    store = open_store(settings.database_url)
    try:
        return run(sweep_id, settings, store.sweeps, store.trials)
    finally:
        store.close()
