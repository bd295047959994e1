"""Wiring of the coordinator: its loop, the tracker's courier, the API."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from datetime import UTC, datetime
from functools import partial

import uvicorn

from orchestrator import __version__
from orchestrator.cluster.launcher import RayLauncher
from orchestrator.coordinator import Coordinator
from orchestrator.errors import Unreachable
from orchestrator.local import read_token
from orchestrator.policy import Rules
from orchestrator.settings import Settings
from orchestrator.sizing import SubprocessSizer
from orchestrator.store import open_store
from orchestrator.tracking.connect import connect
from orchestrator.tracking.courier import Courier
from orchestrator.web.api import create_api
from orchestrator.web.service import Service

log = logging.getLogger(__name__)

TICK_S = 0.25
QUIET_S = 1.0
"""Pause after a tick that found the database or the cluster away."""


class SystemClock:
    """The real time."""

    def now(self) -> datetime:
        """The current time in UTC."""
        return datetime.now(UTC)


def serve(settings: Settings, *, host: str, port: int, ray_dashboard: str, mlflow_uri: str) -> None:
    """Run the coordinator: its loop, the tracker's courier and the API. Returns on SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    listener = socket.create_server((host, port), reuse_port=False)
    url = f"http://{host}:{listener.getsockname()[1]}"
    store, clock = open_store(settings.database_url), SystemClock()
    launcher = RayLauncher(ray_dashboard, settings)
    service = Service(
        sweeps=store.sweeps,
        trials=store.trials,
        board=store.board,
        outbox=store.outbox,
        launcher=launcher,
        clock=clock,
        storage=settings.storage,
        version=__version__,
        coordinator_url=url,
        mlflow_url=mlflow_uri or None,
        ray_dashboard_url=ray_dashboard or None,
        instance=settings.instance,
        sizer=(sizer := SubprocessSizer()),
    )
    rules = Rules(weights=settings.weights, quotas=settings.quotas)
    coordinator = Coordinator(store.sweeps, store.ledger, launcher, clock, rules)
    stop = threading.Event()
    threads = [
        threading.Thread(target=_tick, args=(coordinator, stop), name="ticks"),
    ]
    if mlflow_uri:
        courier = Courier(store.outbox, store.sweeps, store.trials, partial(connect, mlflow_uri, settings.instance))
        # A daemon: it may hang in a call to a tracker that is going down, and what it carries is safe in the outbox.
        threads.append(threading.Thread(target=courier.run, args=(stop,), name="courier", daemon=True))
    server = uvicorn.Server(uvicorn.Config(create_api(service, read_token(settings)), log_level="warning"))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    for thread in threads:
        thread.start()
    log.info("coordinator of %s answers at %s", settings.home, url)
    try:
        server.run(sockets=[listener])  # installs its own handlers, which end the server
    finally:
        stop.set()
        threads[0].join(timeout=10)
        sizer.close()
        store.close()


def _tick(coordinator: Coordinator, stop: threading.Event) -> None:
    """Tick until told to stop. What does not answer is asked again: it is away, not gone."""
    away = ""
    while not stop.is_set():
        pause = TICK_S
        try:
            coordinator.tick()
            if away:
                log.info("back again after: %s", away)
                away = ""
        except Unreachable as error:
            if str(error) != away:
                away = str(error)
                log.warning("%s", away)
            pause = QUIET_S
        except Exception:
            # A coordinator that dies takes every sweep's progress with it; what it met is logged and met again.
            log.exception("a tick failed")
            pause = QUIET_S
        stop.wait(pause)
