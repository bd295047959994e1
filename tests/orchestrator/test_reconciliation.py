"""What a coordinator that begins to act finds is told in a line for each sweep, and is what its next tick does."""

from __future__ import annotations

import pytest

from orchestrator.control import cancel, pause
from orchestrator.coordinator import Coordinator
from orchestrator.errors import ClusterError
from orchestrator.lifecycle import TRIAL_ENDS, SweepState, TrialState
from orchestrator.reconciliation import reconcile
from orchestrator.records import DriverStatus
from orchestrator.store import open_store
from orchestrator.submit import submit
from tests.support.clock import FakeClock
from tests.support.launcher import FakeLauncher

TEXT = "name: {name}\nparameters: {{training.lr: [1e-3, 1e-2]}}\n"
S, D = SweepState, DriverStatus


@pytest.fixture
def lab(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/orch.db")
    yield store, FakeLauncher(cpus=20), FakeClock()
    store.close()


def finish(store, clock, sweep) -> None:
    for trial in store.trials.trials(sweep.id):
        if trial.state not in TRIAL_ENDS:
            store.trials.start_trial(trial.id, now=clock.now())
            store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=clock.now())


def test_a_line_for_each_sweep_says_what_the_next_tick_then_does(lab):
    store, launcher, clock = lab
    names = ["runs", "died", "ended", "cancelled", "waits"]
    sweeps = {
        name: submit(
            TEXT.format(name=name),
            "f",
            user="u",
            store=store.sweeps,
            trials=store.trials,
            launcher=launcher,
            clock=clock,
        ).sweep
        for name in names
    }
    coordinator = Coordinator(store.sweeps, store.ledger, launcher, clock)
    pause("waits", user="u", store=store.sweeps, clock=clock)
    for _ in range(3):
        coordinator.tick()
    job = {name: launcher.job_id(sweep.id, 1) for name, sweep in sweeps.items()}
    launcher.drivers[job["died"]] = D.DIED
    launcher.drivers[job["ended"]] = D.DONE
    finish(store, clock, sweeps["ended"])
    cancel("cancelled", user="u", store=store.sweeps, clock=clock)
    queued = submit(
        TEXT.format(name="new"), "f", user="u", store=store.sweeps, trials=store.trials, launcher=launcher, clock=clock
    ).sweep

    told = reconcile(store.sweeps, store.outbox, launcher)
    numbered = {name: f"sweep {sweep.id} ({name}): " for name, sweep in sweeps.items()}
    assert told == [
        numbered["runs"] + f"adopted: its driver {job['runs']} runs, with 2 trials to go",
        numbered["died"] + "resumed: its driver was lost: out of memory; it will be started again; "
        "2 trials go on from their last checkpoints",
        numbered["ended"] + "closed: it ended unseen; 2 trials ended with a result, 0 failed",
        numbered["cancelled"] + f"adopted: its driver {job['cancelled']} runs and is stopped, as asked: cancel",
        "1 sweep in the queue, as before",
        "1 sweep paused, as before",
        f"MLflow: {store.outbox.size()} facts are still to be told",
    ]
    coordinator.tick()
    states = {name: store.sweeps.sweep(sweep.id).state for name, sweep in sweeps.items()}
    assert (states["runs"], states["died"], states["ended"]) == (S.RUNNING, S.QUEUED, S.SUCCEEDED)
    assert launcher.drivers[job["cancelled"]] is D.STOPPED
    assert store.sweeps.sweep(queued.id).state is S.STARTING


def test_a_driver_that_was_to_be_started_is_and_nothing_is_told_of_nothing(lab):
    store, launcher, clock = lab
    assert reconcile(store.sweeps, store.outbox, launcher) == ["nothing was going on"]
    sweep = submit(
        TEXT.format(name="a"), "f", user="u", store=store.sweeps, trials=store.trials, launcher=launcher, clock=clock
    ).sweep
    Coordinator(store.sweeps, store.ledger, launcher, clock).tick()
    first, _ = reconcile(store.sweeps, store.outbox, launcher)
    assert first == f"sweep {sweep.id} (a): resumed: its driver fake-{sweep.id}-1 had not been started yet"


@pytest.mark.parametrize("question", ["status", "failure"])
def test_a_driver_of_which_ray_does_not_tell_keeps_no_line_back(lab, monkeypatch, question):
    store, launcher, clock = lab
    submit(
        TEXT.format(name="a"), "f", user="u", store=store.sweeps, trials=store.trials, launcher=launcher, clock=clock
    )
    for _ in range(3):
        Coordinator(store.sweeps, store.ledger, launcher, clock).tick()
    launcher.drivers[launcher.job_id(1, 1)] = D.DIED

    def refuse(sweep):
        raise ClusterError("Ray does not tell")

    monkeypatch.setattr(launcher, question, refuse)
    assert "sweep 1 (a): Ray does not tell; asked again" in reconcile(store.sweeps, store.outbox, launcher)
