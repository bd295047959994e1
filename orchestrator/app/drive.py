"""Wiring of a sweep's driver, which runs inside a Ray job."""

from __future__ import annotations

import logging

from orchestrator.cluster.driver import drive as run
from orchestrator.settings import Settings
from orchestrator.sizing import SubprocessSizer
from orchestrator.store import open_store

LOG = logging.getLogger(__name__)


def drive(sweep_id: int, settings: Settings, attempt: int | None = None) -> int:
    """Drive one sweep to its end; returns the process's exit code.

    attempt: of the sweep, for which this driver was started; where a later one has its own by now, this one ends.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    store = open_store(settings.database_url)
    try:
        present = store.sweeps.sweep(sweep_id).attempt
        if attempt not in (None, present):
            LOG.warning("started for attempt %d of sweep %d, which is at %d: ending", attempt, sweep_id, present)
            return 0
        with SubprocessSizer() as sizer:
            return run(sweep_id, settings, store.sweeps, store.trials, store.nodes, sizer)
    finally:
        store.close()
