"""No answer is not bad news: what is away, hangs or answers nonsense is asked again, and nothing is decided."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orchestrator.cluster import launcher as ray_launcher
from orchestrator.cluster.launcher import RayLauncher
from orchestrator.control import cancel
from orchestrator.coordinator import Coordinator
from orchestrator.errors import ClusterError, Unreachable
from orchestrator.lifecycle import SweepState, TrialState
from orchestrator.records import DriverStatus
from orchestrator.settings import Settings
from orchestrator.store import Store, open_store
from orchestrator.submit import submit
from orchestrator.tracking.connect import connect
from orchestrator.tracking.courier import Courier
from tests.support.builders import a_report
from tests.support.clock import FakeClock
from tests.support.launcher import FakeLauncher

TEXT = "name: away\nparameters: {training.lr: [1e-3, 1e-2]}\n"
TICK_S, BLACKOUT_S = 1, 300


@contextmanager
def answering(status: int, *, known: bool = False) -> Iterator[str]:
    """The address of a server that answers everything with this status; 0: it takes requests and says nothing.

    known: it tells its version as Ray does, so a client takes it for what it knows.
    """
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not status:
                over.wait()
                return
            greets = known and self.path == "/api/version"
            self.send_response(200 if greets else status)
            self.end_headers()
            self.wfile.write(b'{"ray_version": "2.60.0"}' if greets else b"nothing here")

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def record(sqlite_url: str) -> Iterator[Store]:
    opened = open_store(sqlite_url)
    yield opened
    opened.close()


def test_five_minutes_without_ray_restart_nothing_and_lose_no_metric(record: Store) -> None:
    clock, launcher = FakeClock(), FakeLauncher()
    coordinator = Coordinator(record.sweeps, record.ledger, launcher, clock)
    of = {"store": record.sweeps, "clock": clock, "user": "u"}
    sweep = submit(TEXT, "f.yaml", trials=record.trials, launcher=launcher, **of).sweep
    for _ in range(3):
        coordinator.tick()
    trial, other = (record.trials.start_trial(each.id, now=clock.now()) for each in record.trials.trials(sweep.id))
    launcher.away = True
    curve = []
    for step in range(BLACKOUT_S // TICK_S):
        clock.advance(seconds=TICK_S)
        with pytest.raises(Unreachable):
            coordinator.tick()
        # The driver needs no coordinator to go on
        record.trials.record([a_report(trial.id, step, val_bpb=1.0 / (step + 1), at=clock.now())])
        curve.append((step, 1.0 / (step + 1)))
    record.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=clock.now())
    launcher.away = False
    for _ in range(3):
        coordinator.tick()
    now = record.sweeps.sweep(sweep.id)
    assert (now.state, now.attempt, now.losses) == (SweepState.RUNNING, 1, 0)
    assert launcher.started == [launcher.job_id(sweep.id, 1)]
    assert record.trials.curve(trial.id, "val_bpb") == curve
    assert record.trials.trial(other.id).state is TrialState.RUNNING
    # What was asked for meanwhile is done now
    launcher.away = True
    cancel(sweep.name, **of)
    with pytest.raises(Unreachable):
        coordinator.tick()
    launcher.away = False
    coordinator.tick()
    assert launcher.drivers[launcher.job_id(sweep.id, 1)] is DriverStatus.STOPPED


@pytest.mark.parametrize("known", [False, True], ids=["at first", "later"])
@pytest.mark.parametrize("status", [0, 500, 502, 404])
def test_a_dashboard_in_trouble_tells_nothing_of_a_driver(
    tmp_path, record: Store, status: int, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_launcher, "TIMEOUT_S", 0.3)
    settings = Settings.from_env({"ORCH_HOME": str(tmp_path)})
    sweep = submit(
        TEXT, "f.yaml", user="u", store=record.sweeps, trials=record.trials, launcher=FakeLauncher(), clock=FakeClock()
    ).sweep
    with answering(status, known=known) as address:
        launcher = RayLauncher(address, settings)
        for ask in (launcher.capacity, launcher.living, lambda: launcher.status(sweep), lambda: launcher.start(sweep)):
            with pytest.raises((Unreachable, ClusterError)):
                ask()


@pytest.mark.parametrize("status", [500, 503])
def test_what_mlflow_answers_with_an_error_is_kept(record: Store, status: int) -> None:
    clock, launcher = FakeClock(), FakeLauncher()
    submit(TEXT, "f.yaml", user="u", store=record.sweeps, trials=record.trials, launcher=launcher, clock=clock)
    Coordinator(record.sweeps, record.ledger, launcher, clock).tick()
    before = record.outbox.pending()
    assert before
    with answering(status) as address:
        courier = Courier(record.outbox, record.sweeps, record.trials, lambda: connect(address, "test"))
        with pytest.raises(Unreachable):
            courier.drain_once()
    assert record.outbox.pending() == before
