"""The cluster is asked rarely, however many requests come."""

from __future__ import annotations

import pytest

from orchestrator.errors import Unreachable
from orchestrator.recent import BELIEVED_S, RecentPool
from tests.support.launcher import FakeLauncher


def test_an_answer_is_believed_for_a_moment_and_so_is_none():
    launcher, now = FakeLauncher(cpus=2), [0.0]
    pool = RecentPool(launcher, now_s=lambda: now[0])
    assert pool.capacity().cpus == 2
    launcher.cpus = 4
    assert pool.capacity().cpus == 2
    now[0] += BELIEVED_S
    assert pool.capacity().cpus == 4
    launcher.away = True
    now[0] += BELIEVED_S
    with pytest.raises(Unreachable):
        pool.capacity()
    launcher.away = False
    with pytest.raises(Unreachable):
        pool.capacity()
    now[0] += BELIEVED_S
    assert pool.capacity().cpus == 4
