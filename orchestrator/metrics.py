"""Prometheus: what the coordinator measures of itself, and what stands in the database when somebody asks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

from orchestrator.errors import Unreachable
from orchestrator.ports import Clock, Deliveries, Figures, Outbox, Pool, SweepStore

WAIT_BOUNDS_S = (1, 10, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86_400, 3 * 86_400, 7 * 86_400)
TICK_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
DATABASE_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)

# The first that fits; a label with the whole sentence would make a series of every message.
CAUSES = (
    (
        "out_of_memory",
        re.compile(
            r"out of memory|OutOfMemory|\bOOM\b|MemoryError|memory limit|(low on|not enough) memory"
            r"|`resources\.memory` allows",
            re.IGNORECASE,
        ),
    ),
    ("not_finite", re.compile(r"\b(nan|inf)\b|not finite|diverged", re.IGNORECASE)),
    ("hang", re.compile(r"\bno (report|step)\b|heartbeat|\b(hangs?|hanging|hung)\b", re.IGNORECASE)),
    ("lost", re.compile(r"\b(lost|lease|group|died|killed)\b", re.IGNORECASE)),
    ("disk", re.compile(r"No space left|disk|OSError", re.IGNORECASE)),
    ("data", re.compile(r"DataError|corpus|data set", re.IGNORECASE)),
    ("error", re.compile(r"^\w+(Error|Exception|Interrupt): ")),
)


class Metrics:
    """What the process measures of itself. Safe to share by threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._tick = Histogram(
            "orch_tick_seconds", "Duration of a scheduler tick.", buckets=TICK_BOUNDS_S, registry=self.registry
        )
        self._database = Histogram(
            "orch_database_seconds",
            "Duration of a database transaction, the wait for its turn included.",
            ["kind"],
            buckets=DATABASE_BOUNDS_S,
            registry=self.registry,
        )

    def tick(self, seconds: float) -> None:
        """A tick of the scheduler took so long."""
        self._tick.observe(seconds)

    def transaction(self, kind: str, seconds: float) -> None:
        """A transaction took so long. kind: read or write."""
        self._database.labels(kind).observe(seconds)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it. Raises Unreachable."""
        return generate_latest(self.registry)


class Record:
    """A collector of what stands in the database and of the pool, read when somebody asks."""

    def __init__(
        self, sweeps: SweepStore, figures: Figures, outbox: Outbox, deliveries: Deliveries, pool: Pool, clock: Clock
    ) -> None:
        self._sweeps, self._figures, self._outbox, self._deliveries = sweeps, figures, outbox, deliveries
        self._pool, self._clock = pool, clock

    def describe(self) -> list[Metric]:
        """Nothing beforehand: the database need not be there when the registry is made."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Raises Unreachable when the database does not answer."""
        counts = self._sweeps.counts()
        yield _by("orch_sweeps", "Sweeps by state; the queued ones are the queue.", "state", counts)
        yield _by("orch_trials", "Trials by state.", "state", self._figures.trial_states())
        yield from self._waiting()
        yield _by(
            "orch_failed_trials", "Trials that failed for good, by cause.", "cause", causes(self._figures.failures())
        )
        yield GaugeMetricFamily("orch_lost_drivers", "Drivers lost by sweeps.", value=self._figures.lost_drivers())
        waiting = {"mlflow": self._outbox.size(), "webhooks": self._deliveries.size()}
        yield _by("orch_outbox_size", "Items that have yet to arrive.", "destination", waiting)
        yield from self._resources()

    def _waiting(self) -> Iterator[Metric]:
        waits = self._figures.waits(WAIT_BOUNDS_S)
        buckets = [(str(float(bound)), count) for bound, count in zip(WAIT_BOUNDS_S, waits.within, strict=True)]
        yield HistogramMetricFamily(
            "orch_queue_wait_seconds",
            "Time in the queue of sweeps that have started.",
            buckets=[*buckets, ("+Inf", waits.number)],
            sum_value=waits.total_s,
        )
        oldest = (self._clock.now() - waits.oldest_since).total_seconds() if waits.oldest_since else 0.0
        yield GaugeMetricFamily(
            "orch_queue_oldest_seconds", "Time in the queue of the sweep that waits longest.", value=max(oldest, 0.0)
        )

    def _resources(self) -> Iterator[Metric]:
        try:
            capacity = self._pool.capacity()
        except Unreachable:
            yield GaugeMetricFamily("orch_cluster_up", "Whether Ray answers.", value=0)
            return
        yield GaugeMetricFamily("orch_cluster_up", "Whether Ray answers.", value=1)
        total = GaugeMetricFamily("orch_pool_total", "What the cluster has.", labels=["resource"])
        used = GaugeMetricFamily("orch_pool_used", "What of it is in use.", labels=["resource"])
        for name, there, free in (
            ("cpu", capacity.cpus, capacity.free_cpus),
            ("gpu", capacity.gpus, capacity.free_gpus),
        ):
            total.add_metric([name], there)
            used.add_metric([name], there - free)
        yield total
        yield used
        yield GaugeMetricFamily("orch_pool_nodes", "Nodes of the cluster.", value=capacity.nodes)


def causes(reasons: Mapping[str, int]) -> dict[str, int]:
    """Failures by cause, causes without any included."""
    found = Counter(dict.fromkeys([*(name for name, _ in CAUSES), "other"], 0))
    for reason, number in reasons.items():
        found[next((name for name, pattern in CAUSES if pattern.search(reason)), "other")] += number
    return dict(found)


def _by(name: str, text: str, label: str, values: Mapping[Any, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([str(value)], number)
    return family
