"""What Prometheus reads: figures that stand in the database, and what the process measured of itself."""

from __future__ import annotations

from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.lifecycle import Actor, SweepState, TrialState
from orchestrator.metrics import Metrics, Record, causes
from orchestrator.records import NewDelivery
from orchestrator.store import open_store
from tests.support.builders import NOW, a_sweep, some_trials
from tests.support.clock import FakeClock
from tests.support.launcher import FakeLauncher


def read(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Value by name and label."""
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


@pytest.fixture
def store(database_url):
    """With a listener for the time that transactions take."""
    metrics = Metrics()
    opened = open_store(database_url, metrics.transaction)
    yield opened, metrics
    opened.close()


def test_the_figures_are_those_of_the_record(store):
    record, metrics = store
    launcher, clock = FakeLauncher(cpus=8, gpus=2), FakeClock(NOW + timedelta(minutes=5))
    metrics.registry.register(Record(record.sweeps, record.figures, record.outbox, record.deliveries, launcher, clock))
    empty = read(metrics)
    assert empty["orch_sweeps", "queued"] == empty["orch_queue_oldest_seconds", ""] == 0
    started = record.sweeps.add_sweep(a_sweep(), some_trials(3), now=NOW)
    record.sweeps.add_sweep(a_sweep(), some_trials(1), now=NOW + timedelta(minutes=1))
    record.sweeps.move_sweep(
        started, SweepState.STARTING, actor=Actor.COORDINATOR, reason="", now=NOW + timedelta(seconds=30)
    )
    one, two, _ = record.trials.trials(started.id)
    for trial in (one, two):
        record.trials.start_trial(trial.id, now=NOW)
    record.trials.end_trial(two.id, TrialState.FAILED, reason="RuntimeError: CUDA out of memory", now=NOW)
    record.deliveries.plan([], seen=record.deliveries.bookmark(), upto=99, now=NOW)
    record.deliveries.plan([NewDelivery(sweep_id=1, url="u", payload={})], seen=99, upto=100, now=NOW)
    metrics.tick(0.02)
    found = read(metrics)
    assert found["orch_sweeps", "queued"] == found["orch_sweeps", "starting"] == 1
    assert found["orch_trials", "running"] == found["orch_trials", "failed"] == 1
    assert found["orch_queue_oldest_seconds", ""] == 240
    assert found["orch_queue_wait_seconds_count", ""] == 1
    assert found["orch_queue_wait_seconds_sum", ""] == 30
    assert found["orch_queue_wait_seconds_bucket", "10.0"] == 0
    assert found["orch_queue_wait_seconds_bucket", "60.0"] == 1
    assert found["orch_failed_trials", "out_of_memory"] == 1
    assert found["orch_outbox_size", "mlflow"] == record.outbox.size() == 4
    assert found["orch_outbox_size", "webhooks"] == 1
    assert (found["orch_pool_total", "cpu"], found["orch_pool_used", "gpu"]) == (8, 0)
    assert (found["orch_tick_seconds_count", ""], found["orch_tick_seconds_bucket", "0.03"]) == (1, 1)
    assert found["orch_database_seconds_count", "write"] > 5
    assert found["orch_database_seconds_count", "read"] > 5
    launcher.away = True
    away = read(metrics)
    assert away["orch_cluster_up", ""] == 0
    assert ("orch_pool_total", "cpu") not in away


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("OutOfMemoryError: CUDA out of memory", "out_of_memory"),
        ("it takes 1.6 GB of memory, and `resources.memory` allows 1 GB", "out_of_memory"),
        ("its workers were lost (rank 0: the task was killed, the node is low on memory)", "out_of_memory"),
        ("MemoryError: Unable to allocate 8 GiB", "out_of_memory"),
        ("the sweep's metric val_bpb is nan at step 3", "not_finite"),
        ("the process that led it was lost", "lost"),
        ("its lease was taken away", "lost"),
        ("no report for 300 s", "hang"),
        ("it hangs: no step for 9 s, and `heartbeat_timeout` is 5 s; where it stands is in its log", "hang"),
        ("RuntimeError: dictionary changed size during iteration", "error"),
        ("ValueError: shape unchanged", "error"),
        ("OSError: No space left on device", "disk"),
        ("ValueError: shapes differ", "error"),
        ("who knows", "other"),
    ],
)
def test_reasons_are_counted_by_cause(reason, cause):
    assert {name: number for name, number in causes({reason: 3}).items() if number} == {cause: 3}
