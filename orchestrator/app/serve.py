"""Wiring of the coordinator: its loop, the tracker's courier, the API."""

from __future__ import annotations

import ctypes
import gc
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial

import uvicorn

from orchestrator import __version__
from orchestrator.app.acting import Acting
from orchestrator.clock import SystemClock
from orchestrator.cluster.launcher import RayLauncher
from orchestrator.coordinator import BELIEVE_DRIVERS_FOR, Coordinator
from orchestrator.errors import BadInput, Unreachable
from orchestrator.leadership import Leadership, is_dead, this_process
from orchestrator.local import make_token, read_token
from orchestrator.metrics import Metrics, Record
from orchestrator.notify.addresses import Allowed
from orchestrator.notify.notifier import Notifier
from orchestrator.notify.webhook import Webhook
from orchestrator.policy import Rules
from orchestrator.ports import Clock
from orchestrator.processes import go_first
from orchestrator.recent import RecentCluster
from orchestrator.reconciliation import reconcile
from orchestrator.settings import Settings, is_loopback
from orchestrator.sizing import SubprocessSizer
from orchestrator.store import Store, fenced, open_store
from orchestrator.tokens import keep_local
from orchestrator.tracking.connect import connect
from orchestrator.tracking.courier import Courier
from orchestrator.web.api import create_api
from orchestrator.web.listener import listen, url_of
from orchestrator.web.service import Service

log = logging.getLogger(__name__)

STREAMS_END_S = 1
"""What live streams have for their end when the coordinator is told to stop: they would not end by themselves."""

TIDY_EVERY_S = 10
"""How often cycles are collected, however few objects came, and freed memory is given back to the system."""

ARENAS = 2
"""Heaps that glibc gives the threads together. It would make eight a core, and what is free in one serves no other."""

M_ARENA_MAX = -8  # of glibc's malloc.h


def serve(
    settings: Settings,
    *,
    host: str,
    port: int,
    ray_dashboard: str,
    mlflow_uri: str,
    clock: Clock | None = None,
) -> None:
    """Run the coordinator: its loop, the tracker's courier and the API. Returns on SIGTERM or SIGINT.

    clock: the machine's own when left out.

    Raises:
        BadInput: others than this machine could reach `host`, and no token has been set.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    go_first()
    _share_heaps()
    metrics, clock = Metrics(), clock or SystemClock()
    store = open_store(settings.database_url, metrics.transaction)
    _admit(settings, host, store, clock)
    listener = listen(host, port)
    url = url_of(host, listener)
    cluster = RayLauncher(ray_dashboard, settings)
    leadership = Leadership(store.lease, clock, holder=this_process(), is_dead=is_dead)
    recent = RecentCluster(cluster, leadership.confirm)
    metrics.registry.register(Record(store.sweeps, store.figures, store.outbox, store.deliveries, recent, clock))
    service = Service(
        sweeps=store.sweeps,
        trials=store.trials,
        board=store.board,
        outbox=store.outbox,
        tokens=store.tokens,
        changes=store.changes,
        nodes=store.nodes,
        launcher=recent,
        metrics=metrics.text,
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
    own = fenced(store, leadership.number)
    acting = Acting(
        leadership,
        Coordinator(
            own.sweeps,
            own.ledger,
            recent,
            clock,
            rules,
            confirm=leadership.confirm,
            drained=own.nodes.drained,
            believe=BELIEVE_DRIVERS_FOR,
        ),
        partial(reconcile, own.sweeps, own.outbox, cluster),
        metrics.tick,
    )
    stop = threading.Event()
    threads = [
        threading.Thread(target=acting.run, args=(stop,), name="ticks"),
    ]
    if mlflow_uri:
        courier = Courier(
            own.outbox,
            own.sweeps,
            own.trials,
            partial(connect, mlflow_uri, settings.instance),
            acts=lambda: bool(leadership.number()),
        )
        # A daemon: it may hang in a call to a tracker that is going down, and what it carries is safe in the outbox.
        threads.append(threading.Thread(target=courier.run, args=(stop,), name="courier", daemon=True))
    notifier = Notifier(
        own.sweeps,
        own.trials,
        own.deliveries,
        Webhook(Allowed.parse(settings.webhooks_allowed)),
        clock,
        everywhere=settings.webhooks,
        acts=lambda: bool(leadership.number()),
    )
    threads.append(threading.Thread(target=notifier.run, args=(stop,), name="webhooks", daemon=True))
    server = uvicorn.Server(
        uvicorn.Config(create_api(service), log_level="warning", timeout_graceful_shutdown=STREAMS_END_S)
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threads.append(threading.Thread(target=_tidy, args=(stop,), name="tidy", daemon=True))
    for thread in threads:
        thread.start()
    log.info("coordinator of %s answers at %s", settings.home, url)
    collect_seldom()
    try:
        server.run(sockets=[listener])  # installs its own handlers, which end the server
    finally:
        stop.set()
        threads[0].join(timeout=10)
        sizer.close()
        store.close()


def collect_seldom() -> None:
    """What is loaded by now stays: a collection that walked all of it at every 70,000 objects would stop every thread.

    Requests leave few cycles behind, but the figure of a trial's curve leaves 1,700 objects in cycles: by their number
    alone, hundreds of figures would come together first. `_tidy` takes them every ten seconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)


def _share_heaps() -> None:
    """Before there are threads that would get heaps of their own."""
    if limit := _of_libc("mallopt"):
        limit(M_ARENA_MAX, ARENAS)


def _tidy(stop: threading.Event) -> None:
    trim, modules = _of_libc("malloc_trim"), len(sys.modules)  # glibc keeps what was freed
    while not stop.wait(TIDY_EVERY_S):
        gc.collect()
        if len(sys.modules) > modules:  # Ray's client and MLflow's are loaded when there is something for them
            gc.freeze()
            modules = len(sys.modules)
        if trim is not None:
            trim(0)


def _of_libc(name: str) -> Callable[..., object] | None:
    """A function that glibc has, and perhaps no other C library."""
    return getattr(ctypes.CDLL(None), name, None)


def _admit(settings: Settings, host: str, store: Store, clock: Clock) -> None:
    """Make the local token an admin's, so that somebody may come in.

    Raises:
        BadInput: others than this machine could reach `host`, and no token has been set.
    """
    here = is_loopback(host)
    if here:
        make_token(settings)
    try:
        keep_local(read_token(settings), f"{socket.gethostname()}:{settings.home}", store=store.tokens, clock=clock)
    except Unreachable:
        if not any(token.revoked_at is None for token in store.tokens.tokens()):
            raise BadInput(
                f"orch does not listen on {host}, which other machines may reach, before a token is set: set "
                "ORCH_TOKEN to a long random secret, as `openssl rand -hex 32` gives, or listen on 127.0.0.1."
            ) from None
