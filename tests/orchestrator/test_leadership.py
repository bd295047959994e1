"""Of all coordinators on one database, one acts: the next one takes over, and who slept changes nothing."""

from __future__ import annotations

import threading

import pytest

from orchestrator.control import cancel
from orchestrator.coordinator import Coordinator
from orchestrator.errors import LeaseLost
from orchestrator.leadership import LASTS, RENEW_EVERY, Leadership, is_dead, this_process
from orchestrator.lifecycle import SweepState
from orchestrator.records import DriverStatus
from orchestrator.store import Store, fenced, open_store
from orchestrator.submit import submit
from tests.support.clock import FakeClock
from tests.support.launcher import FakeLauncher

TEXT = "name: {name}\nparameters: {{training.lr: [1e-3, 1e-2]}}\n"


class Candidate:
    """A coordinator as `orch serve` runs it, on connections of its own."""

    def __init__(self, url: str, name: str, clock: FakeClock, launcher: FakeLauncher, **options) -> None:
        self.store = open_store(url)
        self.leadership = Leadership(self.store.lease, clock, holder=name, **options)
        own = fenced(self.store, self.leadership.number)
        self.coordinator = Coordinator(own.sweeps, own.ledger, launcher, clock, confirm=self.leadership.confirm)

    def round(self) -> bool:
        """Whether it acted."""
        if not self.leadership.acts():
            return False
        try:
            self.coordinator.tick()
        except LeaseLost:
            self.leadership.lost()
            return False
        return True


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def launcher():
    return FakeLauncher()


@pytest.fixture
def candidate(store, database_url, clock, launcher):
    made = []

    def make(name: str, **options) -> Candidate:
        made.append(Candidate(database_url, name, clock, launcher, **options))
        return made[-1]

    yield make
    for each in made:
        each.store.close()


def queue(store: Store, launcher: FakeLauncher, clock: FakeClock, name: str = "a"):
    return submit(
        TEXT.format(name=name),
        "f.yaml",
        user="u",
        store=store.sweeps,
        trials=store.trials,
        launcher=launcher,
        clock=clock,
    ).sweep


def test_the_second_one_stands_by_and_takes_over_when_the_first_is_silent(candidate, clock):
    first, second = candidate("first"), candidate("second")
    for _ in range(10):
        assert (first.round(), second.round()) == (True, False)
        clock.advance(seconds=RENEW_EVERY.total_seconds() * 0.9)
    clock.advance(seconds=LASTS.total_seconds() / 2)
    assert not second.round()
    clock.advance(seconds=LASTS.total_seconds() + 1)
    assert second.round()
    assert not first.round()
    assert (first.leadership.number(), second.leadership.number()) == (0, 2)


def test_an_orderly_end_and_a_process_that_is_gone_need_not_be_waited_for(candidate):
    first, second = candidate("first"), candidate("second", is_dead=lambda holder: holder == "third")
    assert first.round()
    first.leadership.release()
    assert second.round()
    second.leadership.release()
    assert candidate("third").round()
    assert second.round()


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
def test_a_clock_that_jumps_leaves_one_at_work(candidate, clock, store, launcher, jump_s):
    sweep = queue(store, launcher, clock)
    first, second = candidate("first"), candidate("second")
    for _ in range(3):
        first.round(), second.round()
    clock.advance(seconds=jump_s)
    for _ in range(20):
        first.round(), second.round()
        clock.advance(seconds=1)
    assert bool(first.leadership.number()) != bool(second.leadership.number())
    assert launcher.started == [f"fake-{sweep.id}-1"]


def test_one_that_slept_through_its_lease_in_mid_tick_neither_writes_nor_asks_the_cluster(
    candidate, clock, store, launcher
):
    sweep = queue(store, launcher, clock)
    first, second = candidate("first"), candidate("second")
    first.round(), second.round()
    assert store.sweeps.sweep(sweep.id).state is SweepState.STARTING
    ask = launcher.status

    def sleep_before_answering(asked):
        """The driver is not there when the first one asks; then the second one takes over and starts it."""
        launcher.status = ask
        found = ask(asked)
        clock.advance(seconds=LASTS.total_seconds() + 1)
        for _ in range(3):
            second.round()
            clock.advance(seconds=1)
        launcher.started.append("-- awake --")
        return found

    launcher.status = sleep_before_answering
    assert not first.round()
    assert launcher.started == [f"fake-{sweep.id}-1", "-- awake --"]
    assert store.sweeps.sweep(sweep.id).state is SweepState.RUNNING
    assert second.round()


def test_many_at_once_start_every_driver_once_and_take_over_from_each_other(candidate, clock, store, launcher):
    sweeps = [queue(store, launcher, clock, f"s{i}") for i in range(6)]
    launcher.cpus = 12
    rivals = [candidate(f"rival {i}") for i in range(3)]
    barrier = threading.Barrier(len(rivals))
    acted: list[list[bool]] = [[] for _ in rivals]
    broken: list[BaseException] = []

    def compete(i: int) -> None:
        try:
            for turn in range(12):
                barrier.wait(timeout=60)
                # By turns one of them sleeps for longer than its lease lasts
                acted[i].append(turn % 4 != i and rivals[i].round())
                if barrier.wait(timeout=60) == 0:
                    clock.advance(seconds=LASTS.total_seconds() / 2)
        except BaseException as error:
            broken.append(error)
            barrier.abort()

    threads = [threading.Thread(target=compete, args=(i,)) for i in range(len(rivals))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken
    assert sorted(launcher.started) == sorted(f"fake-{sweep.id}-1" for sweep in sweeps)
    assert any(map(any, acted))
    starts = [event for event in store.sweeps.events() if event.what == "queued -> starting"]
    assert len(starts) == len(sweeps)


def test_a_driver_that_no_sweep_is_to_have_is_stopped(candidate, clock, store, launcher):
    sweep = queue(store, launcher, clock)
    one = candidate("one")
    for _ in range(3):
        one.round()
    stray = launcher.job_id(sweep.id + 7, 1)
    launcher.drivers[stray] = launcher.drivers[launcher.job_id(sweep.id, 9)] = DriverStatus.RUNNING
    clock.advance(minutes=2)
    one.round()
    assert {job for job, status in launcher.drivers.items() if status is DriverStatus.RUNNING} == {
        launcher.job_id(sweep.id, 1)
    }
    cancel("a", user="u", store=store.sweeps, clock=clock)
    one.round(), one.round()
    assert store.sweeps.sweep(sweep.id).state is SweepState.CANCELLED


def test_a_process_tells_itself_from_one_that_is_gone():
    host, pid, started = this_process().split(" ")
    assert not is_dead(this_process())
    assert is_dead(f"{host} {pid} {float(started) - 100}")
    assert not is_dead(f"elsewhere {pid} 0.0")
    assert not is_dead("no process at all")
