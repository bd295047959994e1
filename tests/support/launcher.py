"""A cluster whose drivers do what a test says; for states that no real cluster reaches on demand."""

from __future__ import annotations

from orchestrator.errors import Unreachable
from orchestrator.records import Capacity, DriverStatus, Place, Sweep


class FakeLauncher:
    """`ports.Launcher` in memory. `drivers`: status by job id; a test changes it."""

    def __init__(self, cpus: float = 2, gpus: float = 0, places: tuple[Place, ...] = ()) -> None:
        self.cpus, self.gpus, self.places = cpus, gpus, places
        self.drivers: dict[str, DriverStatus] = {}
        self.started: list[str] = []
        self.away = False

    def job_id(self, sweep_id: int, attempt: int) -> str:
        return f"fake-{sweep_id}-{attempt}"

    def start(self, sweep: Sweep) -> str:
        self._reach()
        job_id = self.job_id(sweep.id, sweep.attempt)
        if job_id not in self.drivers:
            self.started.append(job_id)
            self.drivers[job_id] = DriverStatus.RUNNING
        return job_id

    def status(self, sweep: Sweep) -> DriverStatus:
        self._reach()
        return self.drivers.get(self.job_id(sweep.id, sweep.attempt), DriverStatus.MISSING)

    def stop(self, sweep: Sweep) -> None:
        self._reach()
        self.drivers[self.job_id(sweep.id, sweep.attempt)] = DriverStatus.STOPPED

    def living(self) -> list[str]:
        self._reach()
        return [
            job_id for job_id, status in self.drivers.items() if status in (DriverStatus.PENDING, DriverStatus.RUNNING)
        ]

    def end(self, job_id: str) -> None:
        self._reach()
        self.drivers[job_id] = DriverStatus.STOPPED

    def failure(self, sweep: Sweep) -> str:
        return "out of memory"

    def capacity(self) -> Capacity:
        self._reach()
        return Capacity(
            cpus=self.cpus,
            gpus=self.gpus,
            free_cpus=self.cpus,
            free_gpus=self.gpus,
            nodes=len(self.places) or 1,
            places=self.places,
        )

    def _reach(self) -> None:
        if self.away:
            raise Unreachable("the cluster does not answer")
