"""The courier with trackers that fail on purpose; test_mlflow.py has it with the real one."""

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

import pytest

from orchestrator.errors import Unreachable
from orchestrator.ports import Tracker
from orchestrator.records import Links, OutboxItem, Sweep, Trial
from orchestrator.store import Store
from orchestrator.tracking.courier import BATCH, IDLE_S, LONGEST_WAIT_S, Courier
from tests.support.builders import NOW, a_report, a_sweep, some_trials


class FlakyTracker:
    """Fails in the ways given, in turn, then takes everything."""

    def __init__(self, *failures: Exception) -> None:
        self._failures = list(failures)
        self.told: list[OutboxItem] = []
        self.tries = 0

    def tell(
        self,
        items: Sequence[OutboxItem],
        sweeps: Mapping[int, Sweep],
        trials: Mapping[int, Trial],
        curves: Mapping[int, Sequence[tuple[int, float]]],
    ) -> Links:
        self.tries += 1
        if self._failures:
            raise self._failures.pop(0)
        self.told += items
        return Links(sweeps={id_: f"s{id_}" for id_ in sweeps}, trials={id_: f"t{id_}" for id_ in trials})


def a_courier(record: Store, tracker: Tracker, chance: float = 0.0) -> Courier:
    return Courier(record.outbox, record.sweeps, record.trials, lambda: tracker, lambda: chance)


def fill(record: Store, reports: int = 3) -> Trial:
    sweep = record.sweeps.add_sweep(a_sweep(), some_trials(1), now=NOW)
    trial = record.trials.start_trial(record.trials.trials(sweep.id)[0].id, now=NOW)
    record.trials.record([a_report(trial.id, step) for step in range(reports)])
    return trial


def test_links_and_forgets_what_arrived(record: Store) -> None:
    trial, tracker = fill(record), FlakyTracker()
    courier = a_courier(record, tracker)
    items = record.outbox.pending()
    assert courier.drain_once() == 4
    assert (tracker.told, record.outbox.size()) == (items, 0)
    assert record.trials.trial(trial.id).mlflow_run_id == f"t{trial.id}"
    assert record.sweeps.sweep(trial.sweep_id).mlflow_run_id == f"s{trial.sweep_id}"
    assert courier.drain_once() == 0


def test_goes_in_batches_in_order(record: Store) -> None:
    fill(record, reports=BATCH + 10)
    tracker = FlakyTracker()
    courier = a_courier(record, tracker)
    assert [courier.drain_once(), courier.drain_once(), courier.drain_once()] == [BATCH, 11, 0]
    assert [item.id for item in tracker.told] == sorted(item.id for item in tracker.told)


def test_keeps_everything_when_the_tracker_is_away(record: Store) -> None:
    fill(record)
    before = record.outbox.pending()
    courier = a_courier(record, FlakyTracker(Unreachable("MLflow is away")))
    with pytest.raises(Unreachable):
        courier.drain_once()
    assert record.outbox.pending() == before
    assert courier.drain_once() == len(before)


def test_does_not_connect_before_there_is_something_to_tell(record: Store) -> None:
    connected = []

    def connect() -> Tracker:
        connected.append(threading.current_thread().name)
        return FlakyTracker()

    courier = Courier(record.outbox, record.sweeps, record.trials, connect)
    assert courier.drain_once() == 0
    assert connected == []
    fill(record)
    courier.drain_once()
    courier.drain_once()
    assert len(connected) == 1


def test_runs_on_through_every_failure(record: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.tracking.courier.FIRST_WAIT_S", 0.001)
    fill(record)
    tracker = FlakyTracker(Unreachable("away"), RuntimeError("a bug"), Unreachable("away"))
    stop = threading.Event()
    thread = threading.Thread(target=a_courier(record, tracker).run, args=(stop,))
    thread.start()
    ended = threading.Event()
    for _ in range(1000):
        if record.outbox.size() == 0 or ended.wait(0.02):
            break
    stop.set()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert (tracker.tries, len(tracker.told), record.outbox.size()) == (4, 4, 0)


def test_waits_longer_after_each_failure_with_jitter_up_to_a_minute(record: Store) -> None:
    eager, lazy = a_courier(record, FlakyTracker(), 0.0), a_courier(record, FlakyTracker(), 1.0)
    assert eager.pause_s(0) == lazy.pause_s(0) == IDLE_S
    assert [lazy.pause_s(failures) for failures in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert [eager.pause_s(failures) for failures in (1, 2, 3, 4)] == [0.5, 1, 2, 4]
    assert lazy.pause_s(10_000) == LONGEST_WAIT_S


def test_importing_courier_server_and_connection_imports_no_mlflow() -> None:
    code = (
        "import sys, orchestrator.tracking.courier, orchestrator.tracking.server, orchestrator.tracking.connect;"
        "print(sorted({'mlflow', 'matplotlib', 'torch', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
