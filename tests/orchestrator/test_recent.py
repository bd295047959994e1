"""The cluster is asked rarely, however many requests come, and nobody waits for the answer that has had one lately."""

from __future__ import annotations

import threading

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


def answered() -> None:
    """Wait for the questions that were asked in the background."""
    for thread in threading.enumerate():
        if thread.name == "pool":
            thread.join(10)


def test_an_answer_is_believed_for_a_moment(launcher: Slow, now: list[float], pool: RecentPool) -> None:
    assert pool.capacity().cpus == 2
    launcher.cpus = 4
    now[0] += BELIEVED_S / 2
    assert pool.capacity().cpus == 2
    answered()
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
    answered()
    assert (pool.capacity().cpus, launcher.asked) == (4, 2)


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
    answered()
    with pytest.raises(Unreachable):
        pool.capacity()
    launcher.away = False
    now[0] += BELIEVED_S
    with pytest.raises(Unreachable):
        pool.capacity()
    answered()
    assert pool.capacity().cpus == 2
