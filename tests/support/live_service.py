"""A service of a benchmark's own, of real parts: a Ray head with two cores, a coordinator, and MLflow if wanted."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from orchestrator.cluster.head import Head
from orchestrator.processes import Process, free_ports, spawn, stop
from orchestrator.settings import Settings
from orchestrator.tracking import server
from tests.support.ray_cluster import AS_SERVED, private_ray

# No training to speak of: one step of a network of four units, 20 ms of CPU, its checkpoint included
NOTHING = {
    "task": {"name": "adding", "validation_examples": 1},
    "model": {
        "d_model": 4,
        "n_layers": 1,
        "mixer": {"name": "rnn_tanh"},
        "feedforward": {"name": "dense", "hidden": 4},
    },
    "training": {
        "steps": 1,
        "batch_size": 1,
        "sequence_length": 8,
        "warmup_steps": 0,
        "eval_every": 1,
        "extrapolate": [],
        "figures": False,
    },
}


@dataclass(frozen=True, slots=True)
class LiveService:
    """What runs, and a client of its API. url: of the coordinator; coordinator: its process."""

    settings: Settings
    head: Head
    url: str
    coordinator: psutil.Process
    http: httpx.Client


@contextmanager
def live_service(
    home: Path, *, tracked: bool, program: Sequence[str] = ("orchestrator.cli.main", "serve")
) -> Iterator[LiveService]:
    """Start it in `home`, and end it. program: module that serves, and words that go before the options of `serve`."""
    settings = Settings.from_env({"ORCH_HOME": str(home)})
    [port, mlflow_port] = free_ports(2)
    started: list[Process] = []
    # As `orch up` starts it: what serves goes before what trains
    with private_ray(home, environment=AS_SERVED) as head:
        try:
            mlflow_url = f"http://127.0.0.1:{mlflow_port}" if tracked else ""
            if tracked:
                started.append(server.start(settings, mlflow_port))
                wait(lambda: answers(f"{mlflow_url}/health"), "MLflow's server")
            command = [sys.executable, "-m", *program, "--port", str(port), "--ray-dashboard", head.dashboard_url]
            command += ["--mlflow-uri", mlflow_url]
            environment = {"ORCH_HOME": str(home), "RAY_ADDRESS": "", "OMP_NUM_THREADS": "1"}
            started.append(spawn(command, log=settings.logs / "coordinator.log", env=environment))
            url = f"http://127.0.0.1:{port}"
            wait(lambda: answers(f"{url}/healthz"), "the coordinator")
            headers = {"Authorization": f"Bearer {settings.token_file.read_text().strip()}"}
            with httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=60) as http:
                yield LiveService(settings, head, url, psutil.Process(started[-1].pid), http)
        finally:
            stop(started)


def wait(condition: Callable[[], object], what: str, timeout_s: float = 120.0) -> None:
    """Until it is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.2)


def answers(url: str) -> bool:
    """Whether somebody does there."""
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def memory_bytes(process: psutil.Process) -> int:
    """What would come free with its end."""
    return int(process.memory_full_info().uss)
