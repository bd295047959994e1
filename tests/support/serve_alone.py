"""A coordinator with all of its parts but a cluster: `python serve_alone.py DATABASE_URL HOME` prints its address.

Its loop ticks over the queue as ever; the cluster has two CPUs, and what is started there never ends. The local token
is "secret".
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import uvicorn

from orchestrator import tokens
from orchestrator.app.acting import IDLE_SHARE, TICK_S
from orchestrator.app.serve import collect_seldom
from orchestrator.clock import SystemClock
from orchestrator.coordinator import Coordinator
from orchestrator.errors import StaleRow
from orchestrator.recent import RecentCluster
from orchestrator.store import open_store
from orchestrator.web.api import create_api
from orchestrator.web.listener import listen, url_of
from orchestrator.web.service import Service
from tests.support.launcher import FakeLauncher


def main() -> None:
    store, clock, launcher = open_store(sys.argv[1]), SystemClock(), FakeLauncher()
    tokens.keep_local("secret", "here", store=store.tokens, clock=clock)
    service = Service(
        sweeps=store.sweeps,
        trials=store.trials,
        board=store.board,
        outbox=store.outbox,
        tokens=store.tokens,
        changes=store.changes,
        nodes=store.nodes,
        launcher=RecentCluster(launcher),
        clock=clock,
        storage=Path(sys.argv[2]),
        version="1",
        coordinator_url="",
        mlflow_url=None,
        ray_dashboard_url=None,
        instance="i",
    )
    coordinator = Coordinator(store.sweeps, store.ledger, launcher, clock)
    threading.Thread(target=_tick, args=(coordinator,), daemon=True).start()
    listener = listen("127.0.0.1", 0)
    print(url_of("127.0.0.1", listener), flush=True)
    collect_seldom()
    uvicorn.Server(uvicorn.Config(create_api(service), log_level="warning", access_log=False)).run(sockets=[listener])


def _tick(coordinator: Coordinator) -> None:
    pause = threading.Event()
    took_s = 0.0
    while not pause.wait(max(TICK_S, IDLE_SHARE * took_s)):
        began = time.perf_counter()
        with suppress(StaleRow):
            coordinator.tick()
        took_s = time.perf_counter() - began


if __name__ == "__main__":
    main()
