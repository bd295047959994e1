"""The coordinator over a real store: every open sweep moves one step a tick, from facts alone."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest

from orchestrator.control import cancel
from orchestrator.coordinator import MAX_LOST_DRIVERS, Act, Coordinator, Move, decide
from orchestrator.errors import Unreachable
from orchestrator.lifecycle import SWEEP_ENDS, SWEEP_MOVES, Actor, SweepState, TrialState, Wish
from orchestrator.policy import Allotment
from orchestrator.records import DriverStatus
from orchestrator.store import open_store
from orchestrator.submit import submit
from tests.support.launcher import FakeLauncher

TEXT = "name: {name}\nparameters: {{training.lr: [1e-3, 1e-2]}}\npriority: {priority}\n"


class FixedClock:
    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/orch.db")
    yield opened
    opened.close()


@pytest.fixture
def launcher():
    return FakeLauncher()


@pytest.fixture
def coordinator(store, launcher):
    return Coordinator(store.sweeps, launcher, FixedClock())


@pytest.fixture
def queue(store, launcher):
    def add(name: str = "a", priority: int = 50):
        text = TEXT.format(name=name, priority=priority)
        return submit(text, "f.yaml", user="u", store=store.sweeps, launcher=launcher, clock=FixedClock())

    return add


def state(store, sweep) -> SweepState:
    return store.sweeps.sweep(sweep.id).state


def tick(coordinator, times: int = 1) -> None:
    for _ in range(times):
        coordinator.tick()


def finish_trials(store, sweep, end: TrialState) -> None:
    for trial in store.trials.trials(sweep.id):
        store.trials.start_trial(trial.id, now=FixedClock().now())
        store.trials.end_trial(trial.id, end, reason="", now=FixedClock().now())


def test_a_sweep_goes_from_queue_to_running(coordinator, store, launcher, queue):
    sweep = queue()
    tick(coordinator, 3)
    now = store.sweeps.sweep(sweep.id)
    assert (now.state, now.attempt, now.slots) == (SweepState.RUNNING, 1, 2)
    assert launcher.started == [f"fake-{sweep.id}-1"]
    assert now.ray_job_id == f"fake-{sweep.id}-1"


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (TrialState.SUCCEEDED, SweepState.SUCCEEDED),
        (TrialState.STOPPED, SweepState.SUCCEEDED),
        (TrialState.FAILED, SweepState.FAILED),
    ],
)
def test_a_driver_that_is_done_ends_the_sweep(coordinator, store, launcher, queue, end, expected):
    sweep = queue()
    tick(coordinator, 3)
    finish_trials(store, sweep, end)
    launcher.drivers[f"fake-{sweep.id}-1"] = DriverStatus.DONE
    tick(coordinator)
    assert state(store, sweep) is expected


def test_a_lost_driver_is_replaced_and_its_successor_has_the_next_number(coordinator, store, launcher, queue):
    sweep = queue()
    tick(coordinator, 3)
    launcher.drivers[f"fake-{sweep.id}-1"] = DriverStatus.DIED
    tick(coordinator)
    lost = store.sweeps.sweep(sweep.id)
    assert lost.state is SweepState.QUEUED
    assert "out of memory" in lost.reason
    tick(coordinator, 3)
    assert launcher.started == [f"fake-{sweep.id}-1", f"fake-{sweep.id}-2"]
    assert state(store, sweep) is SweepState.RUNNING


def test_a_driver_that_is_lost_again_and_again_fails_the_sweep_and_its_trials(coordinator, store, launcher, queue):
    sweep = queue()
    for attempt in range(1, MAX_LOST_DRIVERS + 1):
        tick(coordinator, 3)
        launcher.drivers[f"fake-{sweep.id}-{attempt}"] = DriverStatus.DIED
        tick(coordinator)
    assert state(store, sweep) is SweepState.FAILED
    assert {trial.state for trial in store.trials.trials(sweep.id)} == {TrialState.FAILED}


def test_a_driver_done_with_open_trials_counts_as_lost(coordinator, store, launcher, queue):
    sweep = queue()
    tick(coordinator, 3)
    launcher.drivers[f"fake-{sweep.id}-1"] = DriverStatus.DONE
    tick(coordinator)
    assert state(store, sweep) is SweepState.QUEUED


def test_a_new_coordinator_takes_over_where_the_old_one_was_killed(store, launcher, queue):
    sweep = queue()
    for _ in range(5):  # a new coordinator for every tick: nothing is remembered between them
        Coordinator(store.sweeps, launcher, FixedClock()).tick()
    assert state(store, sweep) is SweepState.RUNNING
    assert len(launcher.started) == 1


def test_cancelling_a_queued_sweep_starts_nothing(coordinator, store, launcher, queue):
    sweep = queue()
    cancel(str(sweep.id), user="u", store=store.sweeps, clock=FixedClock())
    tick(coordinator)
    assert state(store, sweep) is SweepState.CANCELLED
    assert launcher.started == []
    assert {trial.state for trial in store.trials.trials(sweep.id)} == {TrialState.CANCELLED}


def test_cancelling_a_running_sweep_stops_its_driver_and_keeps_results(coordinator, store, queue):
    sweep = queue()
    tick(coordinator, 3)
    done = store.trials.trials(sweep.id)[0]
    store.trials.start_trial(done.id, now=FixedClock().now())
    store.trials.end_trial(done.id, TrialState.SUCCEEDED, reason="", now=FixedClock().now())
    cancel(sweep.name, user="u", store=store.sweeps, clock=FixedClock())
    cancel(sweep.name, user="u", store=store.sweeps, clock=FixedClock())
    tick(coordinator, 2)
    assert state(store, sweep) is SweepState.CANCELLED
    assert [trial.state for trial in store.trials.trials(sweep.id)] == [TrialState.SUCCEEDED, TrialState.CANCELLED]


def test_two_sweeps_share_the_pool_and_the_second_slot_comes_back(coordinator, store, launcher, queue):
    first = queue("first")
    tick(coordinator, 3)
    second = queue("second")
    tick(coordinator, 3)
    assert [store.sweeps.sweep(each.id).slots for each in (first, second)] == [1, 1]
    finish_trials(store, second, TrialState.SUCCEEDED)
    launcher.drivers[f"fake-{second.id}-1"] = DriverStatus.DONE
    tick(coordinator, 2)
    assert store.sweeps.sweep(first.id).slots == 2


def test_a_sweep_that_waits_says_for_what(coordinator, store, queue):
    queue("first", priority=90)
    tick(coordinator, 3)
    queue("second")
    third = queue("third")
    tick(coordinator)
    assert "waits for 1 CPU" in store.sweeps.sweep(third.id).reason


def test_an_unreachable_cluster_changes_nothing(coordinator, store, launcher, queue):
    sweep = queue()
    tick(coordinator, 3)
    launcher.away = True
    with pytest.raises(Unreachable):
        tick(coordinator)
    launcher.away = False
    tick(coordinator)
    assert state(store, sweep) is SweepState.RUNNING
    assert len(launcher.started) == 1


@pytest.mark.parametrize("wish", Wish)
@pytest.mark.parametrize(
    ("before", "driver"), list(itertools.product(sorted(set(SweepState) - SWEEP_ENDS), DriverStatus)), ids=str
)
def test_only_legal_moves_are_decided(store, queue, before, driver, wish):
    import dataclasses

    sweep = dataclasses.replace(queue(), state=before, wish=wish, attempt=1)
    for trials in ({}, {TrialState.SUCCEEDED: 1}, {TrialState.FAILED: 2}, {TrialState.RUNNING: 1}):
        match decide(sweep, driver, trials, Allotment(1, "")):
            case Move(to, reason):
                assert Actor.COORDINATOR in SWEEP_MOVES[before, to]
                assert reason
            case Act() | None:
                pass
