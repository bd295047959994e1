"""The service on this machine: what `orch up` starts, what it recorded, and what `orch down` ends."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import httpx

from orchestrator import __version__
from orchestrator.access import new_secret
from orchestrator.cluster import head
from orchestrator.cluster.head import Head
from orchestrator.errors import OrchError, Unreachable
from orchestrator.processes import Process, free_ports, spawn, stop
from orchestrator.settings import Settings
from orchestrator.tracking import server

HOST = "127.0.0.1"
COORDINATOR_PORT = 7070
START_TIMEOUT_S = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Addresses of a service, and the processes that `orch up` started for it; None for what it was told to use."""

    coordinator_url: str
    mlflow_url: str
    ray_dashboard_url: str
    coordinator: Process
    ray: Head | None
    mlflow: Process | None


def running(settings: Settings) -> Running | None:
    """The local service, if its coordinator answers."""
    recorded = _read(settings)
    return recorded if recorded and _answers(recorded.coordinator_url, settings) else None


def up(settings: Settings, *, say: Say) -> Running:
    """Start what does not run yet and return when the coordinator answers; MLflow may need half a minute more.

    Safe to repeat, and to call from two processes at once.

    Raises:
        OrchError: something did not start; the message tells where its log is.
    """
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_one(settings):
        before = _read(settings)
        if before and _healthy(before, settings):
            return before
        make_token(settings)
        ray = _ray(settings, before, say)
        mlflow_process, mlflow_url = _mlflow(settings, before, say)
        dashboard = ray.dashboard_url if ray else _dashboard_of(settings.ray_address or "")
        if before and before.coordinator.is_alive:
            stop([before.coordinator])  # it knows addresses that are no longer true, or does not answer
        say("starting the coordinator")
        [port] = free_ports(1, [COORDINATOR_PORT] if settings.home.name == ".orch" else [])
        command = [sys.executable, "-m", "orchestrator.cli.main", "serve", "--host", HOST, "--port", str(port)]
        command += ["--ray-dashboard", dashboard, "--mlflow-uri", mlflow_url]
        coordinator = spawn(command, log=settings.logs / "coordinator.log")
        found = Running(
            coordinator_url=f"http://{HOST}:{port}",
            mlflow_url=mlflow_url,
            ray_dashboard_url=dashboard,
            coordinator=coordinator,
            ray=ray,
            mlflow=mlflow_process,
        )
        _write(settings, found)
        _wait_for_coordinator(found, settings)
        return found


def down(settings: Settings) -> list[str]:
    """End what `up` started, by recorded process; names of what was ended. Queued work stays in the database."""
    if not settings.run_file.exists():
        return []
    with _only_one(settings):
        recorded = _read(settings)
        if recorded is None:
            return []
        ended = []
        # First, lest it take the end of the drivers for their loss
        if recorded.coordinator.is_alive:
            stop([recorded.coordinator])
            ended.append("coordinator")
        ends: list[Callable[[], None]] = []
        if recorded.ray:
            ended += ["Ray"] if head.is_running(recorded.ray) else []
            ends.append(partial(head.stop, recorded.ray))
        if recorded.mlflow:
            ended += ["MLflow"] if recorded.mlflow.is_alive else []
            ends.append(partial(stop, [recorded.mlflow]))
        # Each takes seconds, waiting for most of them
        with ThreadPoolExecutor() as side_by_side:
            list(side_by_side.map(lambda end: end(), ends))
        settings.run_file.unlink(missing_ok=True)
        return ended


def read_token(settings: Settings) -> str:
    """The local service's token, or ORCH_TOKEN where that is set.

    Raises:
        Unreachable: there is none, or it belongs to somebody else.
    """
    if settings.token:
        return settings.token
    try:
        return settings.token_file.read_text().strip()
    except OSError as error:
        raise Unreachable(f"cannot read the service's token {settings.token_file}: {error.strerror}.") from None


def _ray(settings: Settings, before: Running | None, say: Say) -> Head | None:
    if settings.ray_address:
        return None
    if before and before.ray:
        if head.is_running(before.ray):
            return before.ray
        head.stop(before.ray)
    say("starting Ray")
    return head.start(settings.home, settings.logs / "ray.log")


def _mlflow(settings: Settings, before: Running | None, say: Say) -> tuple[Process | None, str]:
    if settings.mlflow_uri:
        return None, settings.mlflow_uri
    if before and before.mlflow:
        if before.mlflow.is_alive:
            return before.mlflow, before.mlflow_url
        stop([before.mlflow])  # what it has left behind would write to the same database
    say("starting MLflow in the background")
    [port] = free_ports(1, [server.PORT] if settings.home.name == ".orch" else [])
    process = server.start(settings, port)
    return process, f"http://{HOST}:{port}"


def _dashboard_of(ray_address: str) -> str:
    """The dashboard of an existing cluster: RAY_ADDRESS may name it, or the head's GCS (then on Ray's usual port)."""
    if ray_address.startswith("http"):
        return ray_address.rstrip("/")
    address = ray_address.removeprefix("ray://")
    return f"http://{address.rpartition(':')[0] or address}:8265"


def _healthy(found: Running, settings: Settings) -> bool:
    services = [found.ray is None or head.is_running(found.ray), found.mlflow is None or found.mlflow.is_alive]
    return all(services) and _answers(found.coordinator_url, settings)


def _answers(url: str, settings: Settings) -> bool:
    try:
        reply = httpx.get(f"{url}/healthz", timeout=2)
        return reply.is_success and reply.json().get("instance") == settings.instance
    except (httpx.HTTPError, ValueError):
        return False


def _wait_for_coordinator(found: Running, settings: Settings) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _answers(found.coordinator_url, settings):
        if not found.coordinator.is_alive or time.monotonic() > deadline:
            log = settings.logs / "coordinator.log"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise OrchError(f"the coordinator did not start. The end of {log}:\n{tail}")
        time.sleep(0.05)


def make_token(settings: Settings) -> None:
    """Write the local token, an admin's, readable by its owner alone; one that is there stays."""
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(settings.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(handle, "w") as file:
        file.write(settings.token or new_secret())


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    """Two `orch up` at once would start everything twice."""
    with (settings.home / ".up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(settings: Settings) -> Running | None:
    try:
        data = json.loads(settings.run_file.read_text())
        return Running(
            coordinator_url=data["coordinator_url"],
            mlflow_url=data["mlflow_url"],
            ray_dashboard_url=data["ray_dashboard_url"],
            coordinator=Process(**data["coordinator"]),
            ray=Head(**data["ray"]) if data["ray"] else None,
            mlflow=Process(**data["mlflow"]) if data["mlflow"] else None,
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise OrchError(
            f"{settings.run_file} is damaged, so what `orch up` started is not known. "
            "End what still runs by hand, remove the file, and start again."
        ) from None


def _write(settings: Settings, found: Running) -> None:
    document = {"version": __version__, **dataclasses.asdict(found)}
    temporary = settings.run_file.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, indent=2))
    temporary.replace(settings.run_file)
