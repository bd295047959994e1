"""A driver's calls wait for a database that is away, and what was committed unheard is not done twice."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from orchestrator.cluster import patience
from orchestrator.cluster.patience import patient
from orchestrator.errors import IllegalMove, Unreachable
from orchestrator.lifecycle import TrialState
from orchestrator.store import Store, open_store
from tests.support.builders import NOW, a_report, a_sweep, some_trials
from tests.support.postgres import private_postgres
from workloads import faults


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(faults, "_DIRECTORY", str(tmp_path / "faults"))
    return tmp_path / "faults"


@pytest.mark.parametrize("where", ["commit", "committed"])
def test_each_move_and_report_is_made_once(store: Store, armed: Path, where: str) -> None:
    sweep = store.sweeps.add_sweep(a_sweep(), some_trials(1), now=NOW)
    [trial] = store.trials.trials(sweep.id)
    rows = patient(store.trials)
    faults.arm(armed, where, "error", count=3)
    assert rows.start_trial(trial.id, now=NOW).attempt == 1
    assert faults.struck(armed) == (3 if where == "commit" else 1)
    faults.arm(armed, where, "error")
    rows.record([a_report(trial.id, 10)])
    back = rows.end_trial(trial.id, TrialState.PENDING, reason="", now=NOW, own_failure=True)
    assert (back.state, back.failures) == (TrialState.PENDING, 1)
    rows.start_trial(trial.id, now=NOW)
    faults.arm(armed, where, "error")
    ended = rows.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)
    assert (ended.state, ended.attempt, ended.failures) == (TrialState.SUCCEEDED, 2, 1)
    assert [event.what for event in store.sweeps.events(sweep_id=sweep.id) if event.trial_id] == [
        "pending -> running", "running -> pending", "pending -> running", "running -> succeeded"
    ]  # fmt: skip
    assert store.trials.curve(trial.id, "val_bpb") == [(10, 8.0 / 11)]
    with pytest.raises(IllegalMove):
        rows.start_trial(trial.id, now=NOW)


def test_patience_has_an_end(store: Store, armed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.0)
    faults.arm(armed, "commit", "error", count=10)
    with pytest.raises(Unreachable):
        patient(store.sweeps).add_sweep(a_sweep(), [], now=NOW)


def test_a_postgresql_that_crashes_under_a_sweep_is_waited_for() -> None:
    # What it has committed outlives its own crash, as it would anywhere
    with private_postgres(synchronous_commit="on") as server, server.database() as url:
        store = open_store(url)
        sweep = store.sweeps.add_sweep(a_sweep(), some_trials(1), now=NOW)
        [trial] = store.trials.trials(sweep.id)
        rows = patient(store.trials)
        rows.start_trial(trial.id, now=NOW)
        back, recorded = threading.Event(), []

        def record() -> None:
            while not back.is_set() or len(recorded) < 40:
                rows.record([a_report(trial.id, len(recorded), val_bpb=float(len(recorded)))])
                recorded.append(float(len(recorded)))

        recording = threading.Thread(target=record)
        recording.start()
        while len(recorded) < 20:
            time.sleep(0.01)
        server.stop(signal.SIGQUIT)
        time.sleep(1)
        server.start()
        back.set()
        recording.join()
        rows.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)
        assert store.trials.curve(trial.id, "val_bpb") == list(enumerate(recorded))
        store.close()
