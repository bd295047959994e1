"""A real Ray head for a test session, and what drives sweeps on it as the service would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import yaml

import workloads
from orchestrator.cluster import head as ray_head
from orchestrator.cluster.head import MARK, Head
from orchestrator.cluster.launcher import RayLauncher
from orchestrator.lifecycle import Actor, SweepState
from orchestrator.matching import Sizer
from orchestrator.planning import config_hash
from orchestrator.records import NewTrial, Sweep, Trial
from orchestrator.settings import Settings
from orchestrator.store import Store, open_store
from orchestrator.submit import submit
from tests.support.builders import NOW, a_sweep
from tests.support.clock import FakeClock

DRIVE = Path(__file__).with_name("drive.py")
# The machine that runs the tests is busy with other things: by default Ray kills workers when 95 % of its memory are
# taken
AS_SERVED = {"OMP_NUM_THREADS": "1", "RAY_memory_usage_threshold": "0.99"}
# And gives them what nobody else wants of its cores
ENVIRONMENT = AS_SERVED | {"RAY_worker_niceness": "0"}
# A sweep's start takes 16 s on two idle cores, and 80 s were seen on two that ten others shared
PATIENCE_S = 240
# One each a cluster, kept by Ray itself whatever runs
OF_THE_CLUSTER = {"TrainStateActor", "_AutoscalingCoordinatorActor"}
T = TypeVar("T")


@contextmanager
def private_ray(home: Path, cpus: int = 2, environment: Mapping[str, str] = ENVIRONMENT) -> Iterator[Head]:
    """A head with `cpus` cores to give, ended with all that it started."""
    head = ray_head.start(home, home / "logs" / "ray.log", cpus=cpus, env={**os.environ, **environment})
    try:
        yield head
    finally:
        ray_head.stop(head)


def wait_for(condition: Callable[[], T], what: str, driver: subprocess.Popen[bytes] | None = None) -> T:
    """What `condition` returns once it is true; it is not waited for longer than `driver` lives."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        assert driver is None or driver.poll() is None, f"the driver ended with {driver.returncode} before {what}"
        time.sleep(0.2)
    return found


def tiny_config(**training: Any) -> dict[str, Any]:
    """A trial of about a second: a byte model of 12,000 parameters."""
    document = workloads.TrialConfig.parse(
        {
            "task": {"name": "bytes_lm"},
            "model": {"d_model": 16, "n_layers": 1, "mixer": {"name": "gru"}},
            "training": {"batch_size": 4, "sequence_length": 32, "steps": 30, "eval_every": 10, "figures": False}
            | training,
        }
    ).document()
    document.pop("seed")
    return document


@dataclass(frozen=True, slots=True)
class Lab:
    """An ORCH_HOME of a test's own on the session's cluster."""

    head: Head
    settings: Settings
    store: Store
    drivers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    def in_home(cls, head: Head, home: Path, **environment: str) -> Lab:
        home.mkdir(parents=True, exist_ok=True)
        settings = Settings.from_env({"ORCH_HOME": str(home)} | environment)
        return cls(head, settings, open_store(settings.database_url))

    def launcher(self) -> RayLauncher:
        return RayLauncher(self.head.dashboard_url, self.settings, program=(sys.executable, str(DRIVE)))

    def add(self, configs: Sequence[Mapping[str, Any]], *, slots: int, name: str = "routing", **spec: Any) -> Sweep:
        """A STARTING sweep of these trials, seed 0 each."""
        trials = [
            NewTrial(number=n, config=config, config_hash=config_hash(config), seed=0, params={"n": n})
            for n, config in enumerate(configs)
        ]
        resources = {"workers": 1, "cpu": 1, "gpu": 0}
        plain = {"early_terminate": None, "resources": resources, "retries": 0, "search": {"method": "grid"}}
        spec = {"name": name} | plain | spec
        sweep = self.store.sweeps.add_sweep(a_sweep(name=name, spec=spec), trials, now=NOW)
        return self.start(sweep, slots)

    def submitted(self, slots: int, *, sizer: Sizer | None = None, **words: Any) -> Sweep:
        """A STARTING sweep of a file with these words, taken as the service takes it.

        sizer: finished trials are shared where there is one.
        """
        text = yaml.safe_dump(words)
        sweep = submit(
            text, "f.yaml", user="u", store=self.store.sweeps, trials=self.store.trials, launcher=self.launcher(),
            clock=FakeClock(), sizer=sizer,
        ).sweep  # fmt: skip
        return self.start(sweep, slots)

    def start(self, sweep: Sweep, slots: int) -> Sweep:
        """As the coordinator does: the next attempt."""
        return self.store.sweeps.move_sweep(
            sweep, SweepState.STARTING, actor=Actor.COORDINATOR, reason="", now=NOW, slots=slots
        )

    def trials(self, sweep: Sweep) -> list[Trial]:
        return self.store.trials.trials(sweep.id)

    def driver_log(self, *sweeps: Sweep) -> Path:
        """What the drivers of these sweeps say."""
        return self.settings.home / f"driver-{'-'.join(str(sweep.id) for sweep in sweeps)}.log"

    def drive(self, *sweeps: Sweep, **own: str) -> subprocess.Popen[bytes]:
        """The drivers of these sweeps, one after the other, as a process of the test's own. own: its environment."""
        environment = os.environ | ENVIRONMENT | {"RAY_ADDRESS": self.head.gcs_address, MARK: self.head.mark}
        environment |= {"ORCH_HOME": str(self.settings.home), "ORCH_DATABASE_URL": self.settings.database_url} | own
        log = self.driver_log(*sweeps).open("ab")
        command = [sys.executable, DRIVE, "drive", *(str(sweep.id) for sweep in sweeps)]
        self.drivers.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        return self.drivers[-1]

    def close(self) -> None:
        """What a failed test left running would hold the cores that the next ones wait for."""
        for driver in self.drivers:
            driver.kill()
            driver.wait()
        self.store.close()

    def directory(self, trial: Trial) -> Path:
        return self.settings.trial_directory(trial.sweep_id, trial.id)

    def steps_by_attempt(self, trial: Trial) -> dict[int, list[int]]:
        """Steps at which the sweep's metric was reported."""
        metric = self.store.sweeps.sweep(trial.sweep_id).metric
        curves = {
            n: self.store.trials.curve(trial.id, metric, attempts=range(n, n + 1)) for n in range(1, trial.attempt + 1)
        }
        return {attempt: [step for step, _ in curve] for attempt, curve in curves.items() if curve}


def train_workers(head: Head) -> list[psutil.Process]:
    """Processes of the cluster that train."""
    return processes_of(head, "RayTrainWorker")


def processes_of(head: Head, actor: str) -> list[psutil.Process]:
    """Processes of the cluster's actors whose class has this in its name."""
    processes = psutil.Process(head.pid).children(recursive=True)
    return [process for process in processes if any(actor in part for part in _command(process))]


def held_on(head: Head) -> list[str]:
    """Actors that live and placement groups that hold something, by name, as Ray tells; Ray's own left out."""
    held = []
    for kind, ended in (("actors", "DEAD"), ("placement_groups", "REMOVED")):
        with urllib.request.urlopen(f"{head.dashboard_url}/api/v0/{kind}?limit=10000", timeout=30) as answer:
            found = json.load(answer)["data"]["result"]["result"]
        living = [each.get("class_name") or each.get("name") for each in found if each["state"] != ended]
        held += [f"{kind}: {name}" for name in living if name not in OF_THE_CLUSTER]
    return held


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
