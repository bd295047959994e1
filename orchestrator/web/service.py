"""What the API works with: ports and addresses, handed in by the wiring; and what a bearer may see of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.access import Principal
from orchestrator.errors import NotFound, Unreachable
from orchestrator.matching import Sizer
from orchestrator.ports import BoardStore, Changes, Clock, NodeStore, Outbox, Pool, SweepStore, TokenStore, TrialStore
from orchestrator.records import Capacity, Sweep, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One running coordinator, as its API sees it.

    storage: root of the trials' directories. metrics: what Prometheus reads.
    """

    sweeps: SweepStore
    trials: TrialStore
    board: BoardStore
    outbox: Outbox
    tokens: TokenStore
    changes: Changes
    nodes: NodeStore
    launcher: Pool
    clock: Clock
    storage: Path
    version: str
    coordinator_url: str
    mlflow_url: str | None
    ray_dashboard_url: str | None
    instance: str
    sizer: Sizer | None = None
    metrics: Callable[[], bytes] = bytes

    def log_path(self, sweep_id: int, trial_id: int) -> Path:
        """A trial's log. Made of numbers alone: nothing of a request's text comes into a path."""
        return self.storage / "sweeps" / str(sweep_id) / "trials" / str(trial_id) / "log.txt"

    def sweep_of(self, who: Principal, reference: str) -> Sweep:
        """The sweep that a bearer means by a number or name. Raises NotFound, also for another project's."""
        return self.sweeps.find_sweep(reference, project=who.project)

    def trial_of(self, who: Principal, trial_id: int) -> Trial:
        """A trial. Raises NotFound, also for another project's, in the same words."""
        try:
            trial = self.trials.trial(trial_id)
            if who.sees(self.sweeps.sweep(trial.sweep_id).project):
                return trial
        except NotFound:
            pass
        raise NotFound(f"no trial {trial_id}; `orch show SWEEP` lists a sweep's trials")

    def capacity(self) -> Capacity | None:
        """What the cluster has; None while it does not answer."""
        try:
            return self.launcher.capacity()
        except Unreachable:
            return None
