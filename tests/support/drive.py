"""Drivers as a program of its own: `drive.py drive SWEEP...`, one after the other, settings from the environment."""

from __future__ import annotations

import logging
import sys

from orchestrator.cluster.driver import drive
from orchestrator.settings import Settings
from orchestrator.store import open_store

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    settings = Settings.from_env()
    store = open_store(settings.database_url)
    sys.exit(max(drive(int(sweep), settings, store.sweeps, store.trials) for sweep in sys.argv[2:]))
