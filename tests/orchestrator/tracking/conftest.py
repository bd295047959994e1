"""A real MLflow server, one a test run, that tests may kill and start again."""

import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.ports import Tracker
from orchestrator.processes import Process, free_ports, stop
from orchestrator.settings import Settings
from orchestrator.store import Store, open_store
from orchestrator.tracking import server
from orchestrator.tracking.connect import connect

UP_WITHIN_S = 120


class MlflowServer:
    """Started as `orch up` starts it; the same address and the same files each time."""

    def __init__(self, home: Path) -> None:
        [self.port] = free_ports(1)
        self.uri = f"http://{server.HOST}:{self.port}"
        self.settings = Settings.from_env({"ORCH_HOME": str(home)})
        self._process: Process | None = None

    def start(self) -> None:
        self._process = server.start(self.settings, self.port)

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + UP_WITHIN_S
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                log = (self.settings.logs / "mlflow.log").read_text()
                assert self._process is not None
                assert self._process.is_alive, log
                assert time.monotonic() < deadline, log
                time.sleep(0.1)

    def kill(self) -> None:
        """kill -9 of the whole group, which the server leads."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        stop([self._process])

    def stop(self) -> None:
        if self._process:
            stop([self._process])


@pytest.fixture(scope="session")
def _starting_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    found = MlflowServer(tmp_path_factory.mktemp("mlflow-home"))
    found.start()
    yield found
    found.stop()


@pytest.fixture
def mlflow_server(_starting_mlflow: MlflowServer) -> MlflowServer:
    """A server that answers."""
    _starting_mlflow.wait_until_up()
    return _starting_mlflow


@pytest.fixture
def tracker(mlflow_server: MlflowServer, sqlite_url: str) -> Tracker:
    """An instance of its own for each test, so that numbers of different tests do not meet in the one server."""
    return connect(mlflow_server.uri, instance=sqlite_url)


@pytest.fixture
def record(sqlite_url: str) -> Iterator[Store]:
    """An empty record; which database it is does not matter to the tracker."""
    opened = open_store(sqlite_url)
    yield opened
    opened.close()
