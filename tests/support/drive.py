"""A sweep's driver as a process of its own: `python tests/support/drive.py SWEEP`, settings from the environment."""

from __future__ import annotations

import logging
import sys

from orchestrator.cluster.driver import drive
from orchestrator.settings import Settings
from orchestrator.store import open_store

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settings = Settings.from_env()
    store = open_store(settings.database_url)
    sys.exit(drive(int(sys.argv[1]), settings, store.sweeps, store.trials))
