"""The coordinator over a real store: every open sweep moves one step a tick, from facts alone."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.control import (
    cancel,
    pause,
    pause_trial,
    resume,
    resume_trial,
    retry,
    retry_trial,
    scale,
    set_priority,
)
from orchestrator.coordinator import MAX_LOST_DRIVERS, Act, Coordinator, Move, _Fitting, charged, decide
from orchestrator.errors import ClusterError, Unreachable
from orchestrator.lifecycle import SWEEP_ENDS, SWEEP_MOVES, Actor, SweepState, TrialState, Wish
from orchestrator.places import most_trials
from orchestrator.policy import Allotment, Demand, Rules
from orchestrator.records import Capacity, DriverStatus, Place, Usage
from orchestrator.spec.operations import Resources
from orchestrator.store import open_store
from orchestrator.submit import submit
from tests.support.builders import a_report
from tests.support.clock import FakeClock
from tests.support.launcher import FakeLauncher

TEXT = "name: {name}\nproject: {project}\nparameters: {{training.lr: [1e-3, 1e-2]}}\npriority: {priority}\n"


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
    return Coordinator(store.sweeps, store.ledger, launcher, FixedClock())


@pytest.fixture
def queue(store, launcher):
    def add(name: str = "a", priority: int = 50, project: str = "default"):
        text = TEXT.format(name=name, priority=priority, project=project)
        return submit(
            text, "f.yaml", user="u", store=store.sweeps, trials=store.trials, launcher=launcher, clock=FixedClock()
        ).sweep

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
        Coordinator(store.sweeps, store.ledger, launcher, FixedClock()).tick()
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


def test_a_higher_priority_stops_a_lower_one_which_goes_on_afterwards(coordinator, store, launcher, queue):
    low = queue("low", priority=10)
    tick(coordinator, 3)
    high = queue("high", priority=90)
    tick(coordinator)
    assert (state(store, low), store.sweeps.sweep(low.id).slots) == (SweepState.RUNNING, 0)
    tick(coordinator, 2)
    assert launcher.drivers[f"fake-{low.id}-1"] is DriverStatus.STOPPED
    preempted = store.sweeps.sweep(low.id)
    assert preempted.state is SweepState.QUEUED
    events = [event for event in store.sweeps.events(sweep_id=low.id) if event.what == "running -> queued"]
    assert [event.reason for event in events] == ["preempted by high of priority 90"]
    tick(coordinator, 3)
    assert (state(store, high), store.sweeps.sweep(high.id).slots) == (SweepState.RUNNING, 2)
    assert "ahead of it: high" in store.sweeps.sweep(low.id).reason
    finish_trials(store, high, TrialState.SUCCEEDED)
    launcher.drivers[f"fake-{high.id}-1"] = DriverStatus.DONE
    tick(coordinator, 4)
    assert (state(store, low), store.sweeps.sweep(low.id).slots) == (SweepState.RUNNING, 2)


def test_a_preemption_once_written_is_carried_out_whatever_happens_meanwhile(coordinator, store, launcher, queue):
    low = queue("low", priority=10)
    tick(coordinator, 3)
    high = queue("high", priority=90)
    tick(coordinator)
    cancel(high.name, user="u", store=store.sweeps, clock=FixedClock())
    tick(coordinator, 2)
    assert store.sweeps.sweep(low.id).losses == 0
    tick(coordinator, 3)
    assert (state(store, low), store.sweeps.sweep(low.id).attempt) == (SweepState.RUNNING, 2)


def test_being_paused_or_preempted_often_does_not_fail_a_sweep(coordinator, store, launcher, queue):
    sweep = queue()
    for attempt in range(1, 2 * MAX_LOST_DRIVERS):
        tick(coordinator, 3)
        assert state(store, sweep) is SweepState.RUNNING
        if attempt % 2:
            pause(sweep.name, user="u", store=store.sweeps, clock=FixedClock())
            pause(sweep.name, user="u", store=store.sweeps, clock=FixedClock())
            tick(coordinator, 2)
            assert state(store, sweep) is SweepState.PAUSED
            assert launcher.drivers[f"fake-{sweep.id}-{attempt}"] is DriverStatus.STOPPED
            tick(coordinator, 2)
            resume(sweep.name, user="u", store=store.sweeps, trials=store.trials, clock=FixedClock())
        else:
            launcher.drivers[f"fake-{sweep.id}-{attempt}"] = DriverStatus.DIED
            tick(coordinator)
            assert store.sweeps.sweep(sweep.id).losses == 1
        tick(coordinator)


def test_a_paused_sweep_gives_its_place_away(coordinator, store, queue):
    first, second = queue("first", priority=90), queue("second")
    tick(coordinator, 3)
    pause("first", user="u", store=store.sweeps, clock=FixedClock())
    tick(coordinator, 5)
    assert (state(store, first), state(store, second)) == (SweepState.PAUSED, SweepState.RUNNING)
    assert store.sweeps.sweep(second.id).slots == 2


def test_priority_and_slots_change_while_it_runs_and_asking_twice_is_the_same_as_once(coordinator, store, queue):
    sweep = queue()
    tick(coordinator, 3)
    for _ in range(2):
        scale(sweep.name, 1, user="ada", store=store.sweeps, clock=FixedClock())
        set_priority(sweep.name, 70, user="ada", store=store.sweeps, clock=FixedClock())
    tick(coordinator)
    now = store.sweeps.sweep(sweep.id)
    assert (now.slots, now.priority) == (1, 70)
    told = [(e.what, e.reason) for e in store.sweeps.events(sweep_id=sweep.id) if e.actor == "ada"]
    assert told == [("set max_concurrent to 1", ""), ("set priority to 70", "it was 50")]
    scale(sweep.name, 2, user="ada", store=store.sweeps, clock=FixedClock())
    tick(coordinator)
    assert store.sweeps.sweep(sweep.id).slots == 2


def test_a_retry_runs_what_failed_and_keeps_what_did_not(coordinator, store, launcher, queue):
    sweep = queue()
    tick(coordinator, 3)
    good, bad = store.trials.trials(sweep.id)
    for trial, end in ((good, TrialState.SUCCEEDED), (bad, TrialState.FAILED)):
        store.trials.start_trial(trial.id, now=FixedClock().now())
        store.trials.end_trial(trial.id, end, reason="", now=FixedClock().now(), own_failure=end is TrialState.FAILED)
    launcher.drivers[f"fake-{sweep.id}-1"] = DriverStatus.DONE
    tick(coordinator)
    for _ in range(2):
        retried = retry(sweep.name, user="ada", store=store.sweeps, clock=FixedClock())
    assert (retried.state, retried.ended_at) == (SweepState.QUEUED, None)
    after = store.trials.trials(sweep.id)
    assert [(trial.state, trial.failures) for trial in after] == [(TrialState.SUCCEEDED, 0), (TrialState.PENDING, 0)]
    events = [(e.actor, e.what) for e in store.sweeps.events(sweep_id=sweep.id)][-2:]
    assert events == [("ada", "succeeded -> queued"), ("user", "failed -> pending")]
    tick(coordinator, 3)
    assert (state(store, sweep), store.sweeps.sweep(sweep.id).slots) == (SweepState.RUNNING, 1)


def test_a_running_sweep_takes_up_a_retried_trial(coordinator, store, launcher, queue):
    sweep = queue()
    tick(coordinator, 3)
    bad, other = store.trials.trials(sweep.id)
    store.trials.start_trial(bad.id, now=FixedClock().now())
    store.trials.end_trial(bad.id, TrialState.FAILED, reason="", now=FixedClock().now(), own_failure=True)
    retry_trial(bad.id, user="ada", sweeps=store.sweeps, trials=store.trials, clock=FixedClock())
    assert store.trials.waiting(sweep.id) == {bad.id, other.id}
    assert state(store, sweep) is SweepState.RUNNING


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_sweep_of_which_people_keep_all_that_is_left_is_paused_until_they_let_one_go(
    coordinator, store, launcher, queue, one_by_one
):
    sweep = queue()
    tick(coordinator, 3)
    first, second = store.trials.trials(sweep.id)
    means = {"user": "ada", "trials": store.trials, "clock": FixedClock()}
    store.trials.start_trial(first.id, now=FixedClock().now())
    pause_trial(second.id, **means)
    tick(coordinator)
    assert store.sweeps.sweep(sweep.id).slots == 1
    store.trials.end_trial(first.id, TrialState.SUCCEEDED, reason="", now=FixedClock().now())
    tick(coordinator)
    assert state(store, sweep) is SweepState.RUNNING  # its driver ends by itself
    launcher.drivers[f"fake-{sweep.id}-1"] = DriverStatus.DONE
    tick(coordinator, 3)
    now = store.sweeps.sweep(sweep.id)
    assert (now.state, now.reason) == (SweepState.PAUSED, "of its trials, 1 is open, and paused")
    assert store.trials.trial(second.id).state is TrialState.PAUSED
    if one_by_one:
        resume_trial(second.id, **means)
    else:
        resume(sweep.name, store=store.sweeps, **means)
    tick(coordinator, 4)
    assert state(store, sweep) is SweepState.RUNNING
    assert store.trials.trial(second.id).state is TrialState.PENDING


def test_a_driver_that_ran_a_moment_ago_is_not_asked_for_while_a_trial_runs(store, launcher, queue):
    clock = FakeClock(FixedClock().now())
    coordinator = Coordinator(store.sweeps, store.ledger, launcher, clock, believe=timedelta(seconds=2))
    sweep = queue()
    tick(coordinator, 3)
    assert state(store, sweep) is SweepState.RUNNING
    [first, _] = store.trials.trials(sweep.id)
    store.trials.start_trial(first.id, now=clock.now())
    launcher.drivers["fake-1-1"] = DriverStatus.DIED
    clock.advance(seconds=1.5)
    tick(coordinator)
    assert state(store, sweep) is SweepState.RUNNING
    clock.advance(seconds=0.5)
    tick(coordinator)
    assert state(store, sweep) is SweepState.QUEUED


@pytest.mark.parametrize("what", [cancel, pause])
def test_a_driver_that_is_to_stop_is_asked_for_at_once(store, launcher, queue, what):
    clock = FakeClock(FixedClock().now())
    coordinator = Coordinator(store.sweeps, store.ledger, launcher, clock, believe=timedelta(seconds=2))
    sweep = queue()
    tick(coordinator, 3)
    store.trials.start_trial(store.trials.trials(sweep.id)[0].id, now=clock.now())
    what(str(sweep.id), user="ada", store=store.sweeps, clock=clock)
    tick(coordinator, 2)
    assert state(store, sweep) is {cancel: SweepState.CANCELLED, pause: SweepState.PAUSED}[what]


def test_each_kind_of_resources_is_held_against_the_nodes_once(monkeypatch):
    asked = []

    def counted(resources, places):
        asked.append(resources)
        return most_trials(resources, places)

    monkeypatch.setattr("orchestrator.coordinator.most_trials", counted)
    places = (Place(labels={"zone": "a"}, memory_bytes=10**10, cpus=8),)
    fitting = _Fitting(Capacity(cpus=8, gpus=0, free_cpus=8, free_gpus=0, nodes=1, places=places))
    kinds = ({}, {"cpu": 2}, {"workers": 4}, {"memory": "5GB"}, {"labels": {"zone": "a"}}, {"labels": {"zone": "b"}})
    words = [
        Resources.model_validate(kind | {"max_concurrent": most}).model_dump() for most in (1, 2) for kind in kinds
    ]
    assert [fitting.trials(each) for each in words] == [8, 4, 2, 2, 8, 0] * 2
    assert len(asked) == len(kinds)


def test_what_a_drained_node_has_is_given_to_nobody(store, queue):
    nodes = tuple(Place(labels={}, memory_bytes=1, node_id=name, cpus=2) for name in "ab")
    launcher = FakeLauncher(cpus=4, places=nodes)
    coordinator = Coordinator(store.sweeps, store.ledger, launcher, FixedClock(), drained=store.nodes.drained)
    sweep = queue()
    for node in nodes:
        store.nodes.drain(node.node_id, name=node.name, user="ada", now=FixedClock().now())
    tick(coordinator)
    assert state(store, sweep) is SweepState.QUEUED
    assert store.sweeps.sweep(sweep.id).reason == "waits for 1 CPU; the whole pool has 0 CPUs and no GPU"
    store.nodes.undrain("b", name="b", user="ada", now=FixedClock().now())
    tick(coordinator, 3)
    assert state(store, sweep) is SweepState.RUNNING


def test_past_usage_outlives_the_coordinator_and_decides_who_is_next(store, launcher, queue):
    clock, rules = FakeClock(), Rules(half_life_s=3600)

    def fresh() -> Coordinator:
        return Coordinator(store.sweeps, store.ledger, launcher, clock, rules)

    greedy = queue("greedy", project="a")
    for _ in range(61):
        clock.advance(minutes=1)
        fresh().tick()
    [usage] = store.ledger.usage()
    assert (usage.project, usage.user) == ("a", "u")
    assert usage.share == pytest.approx(0.5, abs=0.02)  # the whole pool for one half-life
    launcher.drivers[f"fake-{greedy.id}-1"] = DriverStatus.DONE
    finish_trials(store, greedy, TrialState.SUCCEEDED)
    launcher.cpus = 1
    again, other = queue("again", project="a"), queue("other", project="b")
    for _ in range(4):
        fresh().tick()
    assert (state(store, again), state(store, other)) == (SweepState.QUEUED, SweepState.RUNNING)


def test_what_nobody_looked_at_is_not_charged():
    start = FakeClock().now()
    before = [Usage(project="p", user="u", share=0.8, at=start)]
    held = Demand(
        sweep_id=1, name="s", priority=50, trials=1, cpus=1, gpus=0, started=True, project="p", user="u", slots=1
    )
    pool = Capacity(cpus=1, gpus=0, free_cpus=1, free_gpus=0, nodes=1)
    [after] = charged(before, [held], pool, start + timedelta(days=10), 24 * 3600)
    assert after.share < 0.01
    [back] = charged(before, [], pool, start - timedelta(hours=1), 24 * 3600)
    assert back.share == 0.8


TRIALS = ({}, {TrialState.SUCCEEDED: 1}, {TrialState.FAILED: 2}, {TrialState.RUNNING: 1}, {TrialState.PENDING: 1})


@pytest.mark.parametrize("wish", Wish)
@pytest.mark.parametrize(
    ("before", "driver"), list(itertools.product(sorted(set(SweepState) - SWEEP_ENDS), DriverStatus)), ids=str
)
def test_only_legal_moves_are_decided(store, queue, before, driver, wish):
    accepted = queue()
    for slots, allotted, trials in itertools.product((0, 1), (0, 1), TRIALS):
        sweep = dataclasses.replace(accepted, state=before, wish=wish, attempt=1, slots=slots, reason="preempted")
        match decide(sweep, driver, trials, Allotment(allotted, "")):
            case Move(to, reason, losses):
                assert Actor.COORDINATOR in SWEEP_MOVES[before, to]
                assert reason
                assert losses in (None, 0, 1)
            case Act.START:
                assert (before, driver, wish, slots) == (SweepState.STARTING, DriverStatus.MISSING, Wish.RUN, 1)
            case Act.STOP:
                assert driver in (DriverStatus.PENDING, DriverStatus.RUNNING)
            case None:
                pass


@pytest.mark.parametrize("wish", Wish)
@pytest.mark.parametrize("before", sorted(set(SweepState) - SWEEP_ENDS))
@pytest.mark.parametrize("slots", [0, 1])
def test_a_driver_that_is_gone_leaves_no_sweep_where_it_was(queue, before, wish, slots):
    """Whatever is wanted, and whatever a driver's end was: a sweep is never stuck without one."""
    for driver, trials in itertools.product((DriverStatus.DIED, DriverStatus.STOPPED, DriverStatus.DONE), TRIALS):
        sweep = dataclasses.replace(queue(), state=before, wish=wish, attempt=1, slots=slots, reason="preempted")
        rests = before is SweepState.PAUSED and wish is Wish.PAUSE
        assert isinstance(decide(sweep, driver, trials, Allotment(1, "")), Move) != rests


def test_a_search_that_learns_counts_what_it_has_yet_to_propose(coordinator, store, launcher):
    text = (
        "name: l\nparameters: {training.lr: {min: 1e-3, max: 1e-2}}\nsearch: {method: tpe, max_trials: 9, startup: 1}\n"
    )
    sweep = submit(
        text, "f.yaml", user="u", store=store.sweeps, trials=store.trials, launcher=launcher, clock=FixedClock()
    ).sweep
    assert len(store.trials.trials(sweep.id)) == 1
    tick(coordinator, 3)
    assert store.sweeps.sweep(sweep.id).slots == 2


def test_a_driver_that_still_closes_after_its_last_trial_is_left_alone(coordinator, store, launcher, queue):
    sweep = queue()
    tick(coordinator, 3)
    finish_trials(store, sweep, TrialState.SUCCEEDED)
    tick(coordinator, 5)
    assert state(store, sweep) is SweepState.RUNNING
    launcher.drivers[f"fake-{sweep.id}-1"] = DriverStatus.DONE
    tick(coordinator)
    assert state(store, sweep) is SweepState.SUCCEEDED


def test_a_driver_lost_after_its_last_trial_is_replaced_by_one_that_closes_the_sweep(
    coordinator, store, launcher, queue
):
    sweep = queue()
    tick(coordinator, 3)
    finish_trials(store, sweep, TrialState.SUCCEEDED)
    launcher.drivers[f"fake-{sweep.id}-1"] = DriverStatus.DIED
    tick(coordinator, 4)
    assert launcher.started[-1] == f"fake-{sweep.id}-2"
    launcher.drivers[f"fake-{sweep.id}-2"] = DriverStatus.DONE
    tick(coordinator, 2)
    assert state(store, sweep) is SweepState.SUCCEEDED


def test_losses_with_reports_in_between_do_not_add_up(store, launcher, queue):
    """A driver lost once a week for months is bad luck; one that never gets anywhere is its sweep's own doing."""
    clock = FakeClock()
    coordinator = Coordinator(store.sweeps, store.ledger, launcher, clock)
    sweep = queue()
    for attempt in range(1, 2 * MAX_LOST_DRIVERS):
        clock.advance(hours=1)
        tick(coordinator, 3)
        trial = store.trials.trials(sweep.id)[0]
        store.trials.start_trial(trial.id, now=clock.now())
        store.trials.record([a_report(trial.id, attempt, attempt=attempt, at=clock.now())])
        launcher.drivers[f"fake-{sweep.id}-{attempt}"] = DriverStatus.DIED
        tick(coordinator)
        assert store.sweeps.sweep(sweep.id).losses == 1
    for losses in range(2, MAX_LOST_DRIVERS + 1):
        clock.advance(hours=1)
        tick(coordinator, 3)
        launcher.drivers[f"fake-{sweep.id}-{store.sweeps.sweep(sweep.id).attempt}"] = DriverStatus.DIED
        tick(coordinator)
        assert store.sweeps.sweep(sweep.id).losses == losses
    assert state(store, sweep) is SweepState.FAILED


def test_a_stray_is_found_when_no_sweep_is_open_any_more(store, launcher, queue):
    clock = FakeClock(FixedClock().now())
    coordinator = Coordinator(store.sweeps, store.ledger, launcher, clock)
    sweep = queue()
    cancel(sweep.name, user="ada", store=store.sweeps, clock=clock)
    tick(coordinator)
    launcher.drivers["fake-1-7"] = DriverStatus.RUNNING
    clock.advance(seconds=61)
    launcher.away = True
    tick(coordinator)
    launcher.away = False
    clock.advance(seconds=61)
    tick(coordinator)
    assert launcher.drivers["fake-1-7"] is DriverStatus.STOPPED


def test_a_stray_that_ray_does_not_stop_keeps_nobody_waiting(store, launcher, queue, monkeypatch):
    def refuse(job_id: str) -> None:
        raise ClusterError(f"Ray does not stop {job_id}")

    monkeypatch.setattr(launcher, "end", refuse)
    launcher.drivers |= {"fake-8-1": DriverStatus.RUNNING, "fake-9-1": DriverStatus.RUNNING}
    sweep = queue()
    tick(Coordinator(store.sweeps, store.ledger, launcher, FixedClock()), 3)
    assert state(store, sweep) is SweepState.RUNNING


@pytest.mark.parametrize(
    ("gpu", "slots", "reason"),
    [
        (4, 0, "waits for 1 CPU and 4 GPUs; no node where it may run is large enough for one of its workers"),
        (2, 2, ""),
        (0.6, 4, ""),
    ],
)
def test_a_sweep_gets_no_more_slots_than_the_nodes_can_hold_trials(store, gpu, slots, reason):
    node = Place(labels={}, memory_bytes=10**9, cpus=8, gpus=2)
    launcher = FakeLauncher(cpus=16, gpus=4, places=(node, dataclasses.replace(node, node_id="b")))
    text = TEXT.format(name="a", priority=50, project="default")
    submitted = submit(
        f"{text}\nresources: {{gpu: {gpu}}}\nseeds: 8\n",
        "f.yaml",
        user="u",
        store=store.sweeps,
        trials=store.trials,
        launcher=FakeLauncher(cpus=16, gpus=4),
        clock=FixedClock(),
    ).sweep
    coordinator = Coordinator(store.sweeps, store.ledger, launcher, FixedClock())
    tick(coordinator, 2)
    now = store.sweeps.sweep(submitted.id)
    assert (now.slots, now.reason if not slots else "") == (slots, reason)
