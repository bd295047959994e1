"""Drivers as a program of its own: `drive.py drive SWEEP...`, one after the other, settings from the environment."""

from __future__ import annotations

import argparse
import sys

from orchestrator.app.drive import drive
from orchestrator.settings import Settings

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("drive", choices=["drive"])
    parser.add_argument("sweeps", type=int, nargs="+")
    parser.add_argument("--attempt", type=int)
    asked = parser.parse_args()
    settings = Settings.from_env()
    sys.exit(max(drive(sweep, settings, asked.attempt) for sweep in asked.sweeps))
