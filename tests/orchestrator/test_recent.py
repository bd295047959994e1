"""The cluster is asked rarely, however many requests come, and nobody waits for it who has had an answer lately."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import ClusterError, LeaseLost, Unreachable
from orchestrator.recent import BELIEVED_S, STALE_S, RecentCluster
from orchestrator.records import Capacity, DriverStatus, Sweep
from orchestrator.store import open_store
from tests.support.builders import NOW, a_sweep, some_trials
from tests.support.launcher import FakeLauncher


class Slow(FakeLauncher):
    """Answers when it may."""

    def __init__(self) -> None:
        super().__init__(cpus=2)
        self.may, self.asked, self.broken = threading.Event(), 0, False
        self.asked_for: list[int] = []
        """Attempts of which somebody wanted to know."""
        self.may.set()
        self.may_act = threading.Event()
        self.may_act.set()
        self.acts: list[str] = []

    def start(self, sweep: Sweep) -> str:
        self._act(f"start {sweep.attempt}")
        return super().start(sweep)

    def end(self, job_id: str) -> None:
        self._act(f"end {job_id}")
        super().end(job_id)

    def stop(self, sweep: Sweep) -> None:
        self._act(f"stop {sweep.attempt}")
        super().stop(sweep)

    def _act(self, what: str) -> None:
        self.acts.append(what)
        self.may_act.wait(10)
        if self.broken:
            raise ClusterError(f"no {what}")

    def capacity(self) -> Capacity:
        self._ask()
        return super().capacity()

    def status(self, sweep: Sweep) -> DriverStatus:
        self.asked_for.append(sweep.attempt)
        self._ask()
        return super().status(sweep)

    def _ask(self) -> None:
        self.asked += 1
        self.may.wait(10)
        if self.broken:
            raise ClusterError("out of order")


@pytest.fixture
def launcher() -> Slow:
    return Slow()


@pytest.fixture
def now() -> list[float]:
    return [100.0]


@pytest.fixture
def cluster(launcher: Slow, now: list[float]) -> RecentCluster:
    return RecentCluster(launcher, now_s=lambda: now[0])


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    store = open_store(f"sqlite:///{tmp_path}/orch.db")
    yield store.sweeps.add_sweep(a_sweep(), some_trials(1), now=NOW)
    store.close()


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for the answer to a question that was asked in the background."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_away(cluster: RecentCluster) -> bool:
    try:
        cluster.capacity()
    except Unreachable:
        return True
    return False


def test_an_answer_is_believed_for_a_moment(launcher: Slow, now: list[float], cluster: RecentCluster) -> None:
    assert cluster.capacity().cpus == 2
    launcher.cpus = 4
    now[0] += BELIEVED_S / 2
    assert cluster.capacity().cpus == 2
    time.sleep(0.05)  # for a question that should not be asked
    assert (cluster.capacity().cpus, launcher.asked) == (2, 1)


def test_nobody_waits_for_the_next_answer_and_one_alone_asks(
    launcher: Slow, now: list[float], cluster: RecentCluster
) -> None:
    cluster.capacity()
    launcher.cpus = 4
    launcher.may.clear()
    now[0] += BELIEVED_S
    assert [cluster.capacity().cpus for _ in range(5)] == [2] * 5
    launcher.may.set()
    eventually(lambda: cluster.capacity().cpus == 4)
    assert launcher.asked == 2


def test_after_a_long_silence_the_answer_is_waited_for(
    launcher: Slow, now: list[float], cluster: RecentCluster
) -> None:
    cluster.capacity()
    launcher.cpus = 4
    now[0] += STALE_S
    assert cluster.capacity().cpus == 4


def test_a_cluster_that_does_not_answer_is_away_until_it_does(
    launcher: Slow, now: list[float], cluster: RecentCluster
) -> None:
    cluster.capacity()
    launcher.away = True
    now[0] += BELIEVED_S
    assert cluster.capacity().cpus == 2
    eventually(lambda: is_away(cluster))
    launcher.away = False
    now[0] += BELIEVED_S
    with pytest.raises(Unreachable):
        cluster.capacity()
    eventually(lambda: not is_away(cluster))
    assert cluster.capacity().cpus == 2


def test_a_tick_late_a_driver_is_known(launcher: Slow, cluster: RecentCluster, sweep: Sweep) -> None:
    assert cluster.status(sweep) is DriverStatus.MISSING  # the first answer is waited for
    job_id = cluster.start(sweep)
    launcher.may.clear()
    assert cluster.status(sweep) is DriverStatus.PENDING
    launcher.may.set()
    eventually(lambda: cluster.status(sweep) is DriverStatus.RUNNING)
    launcher.drivers[job_id] = DriverStatus.DONE
    eventually(lambda: cluster.status(sweep) is DriverStatus.DONE)


def test_each_attempt_has_a_driver_of_its_own(launcher: Slow, cluster: RecentCluster, sweep: Sweep) -> None:
    cluster.start(sweep)
    eventually(lambda: cluster.status(sweep) is DriverStatus.RUNNING)
    assert cluster.status(replace(sweep, attempt=sweep.attempt + 1)) is DriverStatus.MISSING


def test_what_fails_otherwise_is_told_and_asked_again(launcher: Slow, cluster: RecentCluster, sweep: Sweep) -> None:
    launcher.broken = True
    for _ in range(2):
        with pytest.raises(ClusterError, match="out of order"):
            cluster.status(sweep)
    launcher.broken = False
    eventually(lambda: status_or_none(cluster, sweep) is DriverStatus.MISSING)


def status_or_none(cluster: RecentCluster, sweep: Sweep) -> DriverStatus | None:
    try:
        return cluster.status(sweep)
    except ClusterError:
        return None


def test_a_driver_that_hangs_keeps_no_other_waiting(launcher: Slow, cluster: RecentCluster, sweep: Sweep) -> None:
    other = replace(sweep, attempt=sweep.attempt + 1)
    cluster.start(sweep)
    eventually(lambda: cluster.status(sweep) is DriverStatus.RUNNING)
    launcher.may.clear()
    hangs = threading.Thread(target=cluster.status, args=(other,))
    hangs.start()
    eventually(lambda: other.attempt in launcher.asked_for)
    assert cluster.start(sweep)
    assert cluster.status(sweep) in (DriverStatus.PENDING, DriverStatus.RUNNING)
    launcher.may.set()
    hangs.join()
    eventually(lambda: cluster.status(sweep) is DriverStatus.RUNNING)


def test_those_that_wait_longest_are_asked_first(
    launcher: Slow, cluster: RecentCluster, now: list[float], sweep: Sweep
) -> None:
    drivers = [replace(sweep, attempt=number) for number in range(1, 6)]
    for each in drivers:
        cluster.status(each)  # the first answer is waited for
    launcher.may.clear()
    for each in drivers:
        cluster.status(each)
    eventually(lambda: launcher.asked == 6)
    for each in drivers:
        cluster.status(each)
    launcher.may.set()
    eventually(lambda: launcher.asked == 11)
    assert launcher.asked_for[5:] == [*(each.attempt for each in drivers), 1]


def test_nobody_waits_for_a_driver_to_start_or_stop_and_the_order_stays(
    launcher: Slow, cluster: RecentCluster, sweep: Sweep
) -> None:
    launcher.may_act.clear()
    cluster.start(sweep)
    eventually(lambda: launcher.acts == ["start 0"])
    for _ in range(3):  # ticks, while the cluster takes its time
        assert cluster.status(sweep) is DriverStatus.PENDING
        assert cluster.start(sweep) == "fake-1-0"
        cluster.stop(sweep)
    assert launcher.acts == ["start 0"]
    launcher.may_act.set()
    eventually(lambda: cluster.status(sweep) is DriverStatus.STOPPED)
    assert launcher.acts == ["start 0", "stop 0"]
    cluster.end("fake-1-0")
    eventually(lambda: launcher.acts == ["start 0", "stop 0", "end fake-1-0"])


def test_a_driver_is_not_missed_before_the_cluster_has_it(launcher: Slow, cluster: RecentCluster, sweep: Sweep) -> None:
    assert cluster.status(sweep) is DriverStatus.MISSING
    launcher.may_act.clear()
    launcher.may.clear()
    cluster.status(sweep)  # asks again
    eventually(lambda: launcher.asked == 2)
    cluster.start(sweep)
    launcher.may_act.set()
    eventually(lambda: bool(launcher.started))
    launcher.may.set()  # an answer to what was asked before the start
    assert cluster.status(sweep) in (DriverStatus.PENDING, DriverStatus.RUNNING)
    eventually(lambda: cluster.status(sweep) is DriverStatus.RUNNING)


def test_what_was_refused_is_raised_once_and_then_tried_again(
    launcher: Slow, cluster: RecentCluster, sweep: Sweep
) -> None:
    launcher.broken = True
    cluster.start(sweep)
    eventually(lambda: refused(cluster, sweep) == "no start 0")
    launcher.broken = False
    cluster.start(sweep)
    eventually(lambda: launcher.started == ["fake-1-0"])


def refused(cluster: RecentCluster, sweep: Sweep) -> str:
    try:
        cluster.start(sweep)
    except ClusterError as error:
        return str(error)
    return ""


def test_a_refusal_of_long_ago_is_forgotten(
    launcher: Slow, cluster: RecentCluster, now: list[float], sweep: Sweep
) -> None:
    launcher.broken = True
    other = replace(sweep, attempt=sweep.attempt + 1)
    cluster.stop(sweep)
    cluster.stop(other)
    eventually(lambda: launcher.acts == ["stop 0", "stop 1"])
    launcher.broken = False
    now[0] += STALE_S
    cluster.end("fake-1-7")
    eventually(lambda: launcher.drivers.get("fake-1-7") is DriverStatus.STOPPED)
    cluster.stop(sweep)
    eventually(lambda: launcher.drivers.get("fake-1-0") is DriverStatus.STOPPED)


def test_who_has_lost_the_lease_starts_nothing_that_still_waits(launcher: Slow, sweep: Sweep) -> None:
    asked: list[int] = []

    def confirm() -> None:
        asked.append(1)
        if len(asked) > 1:
            raise LeaseLost("another coordinator acts")

    cluster, other = RecentCluster(launcher, confirm), replace(sweep, attempt=sweep.attempt + 1)
    launcher.may_act.clear()
    cluster.start(sweep)
    cluster.start(other)
    launcher.may_act.set()
    eventually(lambda: len(asked) == 2 and cluster.status(other) is DriverStatus.MISSING)
    assert launcher.started == ["fake-1-0"]
    cluster.start(other)  # by a loop that acts again: what was lost is not raised
