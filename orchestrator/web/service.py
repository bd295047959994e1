"""What the API works with: ports and addresses, handed in by the wiring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.matching import Sizer
from orchestrator.ports import BoardStore, Clock, Launcher, Outbox, SweepStore, TrialStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One running coordinator, as its API sees it. storage: root of the trials' directories."""

    sweeps: SweepStore
    trials: TrialStore
    board: BoardStore
    outbox: Outbox
    launcher: Launcher
    clock: Clock
    storage: Path
    version: str
    coordinator_url: str
    mlflow_url: str | None
    ray_dashboard_url: str | None
    instance: str
    sizer: Sizer | None = None

    def log_path(self, sweep_id: int, trial_id: int) -> Path:
        """A trial's log."""
        return self.storage / "sweeps" / str(sweep_id) / "trials" / str(trial_id) / "log.txt"
