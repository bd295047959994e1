"""The cluster is asked rarely, however many requests come, and nobody waits for the answer that has had one lately."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from orchestrator.errors import Unreachable
from orchestrator.recent import BELIEVED_S, STALE_S, RecentPool
from orchestrator.records import Capacity
from tests.support.launcher import FakeLauncher


class Slow(FakeLauncher):
    """Answers when it may."""

    def __init__(self) -> None:
        super().__init__(cpus=2)
        self.may, self.asked = threading.Event(), 0
        self.may.set()

    def capacity(self) -> Capacity:
        self.asked += 1
        self.may.wait(10)
        return super().capacity()


@pytest.fixture
def launcher() -> Slow:
    return Slow()


@pytest.fixture
def now() -> list[float]:
    return [100.0]


@pytest.fixture
def pool(launcher: Slow, now: list[float]) -> RecentPool:
    return RecentPool(launcher, now_s=lambda: now[0])


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for the answer to a question that was asked in the background."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_away(pool: RecentPool) -> bool:
    try:
        pool.capacity()
    except Unreachable:
        return True
    return False


def test_an_answer_is_believed_for_a_moment(launcher: Slow, now: list[float], pool: RecentPool) -> None:
    assert pool.capacity().cpus == 2
    launcher.cpus = 4
    now[0] += BELIEVED_S / 2
    assert pool.capacity().cpus == 2
    time.sleep(0.05)  # for a question that should not be asked
    assert (pool.capacity().cpus, launcher.asked) == (2, 1)


def test_nobody_waits_for_the_next_answer_and_one_alone_asks(
    launcher: Slow, now: list[float], pool: RecentPool
) -> None:
    pool.capacity()
    launcher.cpus = 4
    launcher.may.clear()
    now[0] += BELIEVED_S
    assert [pool.capacity().cpus for _ in range(5)] == [2] * 5
    launcher.may.set()
    eventually(lambda: pool.capacity().cpus == 4)
    assert launcher.asked == 2


def test_after_a_long_silence_the_answer_is_waited_for(launcher: Slow, now: list[float], pool: RecentPool) -> None:
    pool.capacity()
    launcher.cpus = 4
    now[0] += STALE_S
    assert pool.capacity().cpus == 4


def test_a_cluster_that_does_not_answer_is_away_until_it_does(
    launcher: Slow, now: list[float], pool: RecentPool
) -> None:
    pool.capacity()
    launcher.away = True
    now[0] += BELIEVED_S
    assert pool.capacity().cpus == 2
    eventually(lambda: is_away(pool))
    launcher.away = False
    now[0] += BELIEVED_S
    with pytest.raises(Unreachable):
        pool.capacity()
    eventually(lambda: not is_away(pool))
    assert pool.capacity().cpus == 2
