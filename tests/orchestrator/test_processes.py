"""Processes give way to the coordinator, and keep what they have given way to already."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.processes import BEHIND, put_behind


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own."""
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def niceness(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def test_a_process_gives_way(sleeper: subprocess.Popen[bytes]) -> None:
    before = niceness(os.getpid())
    put_behind(sleeper.pid)
    assert niceness(sleeper.pid) == max(BEHIND, before)
    assert niceness(os.getpid()) == before
    group = Path(f"/proc/{sleeper.pid}/autogroup")
    assert not group.exists() or f"nice {BEHIND}" in group.read_text()


def test_one_that_gives_way_more_already_is_not_raised(sleeper: subprocess.Popen[bytes]) -> None:
    os.setpriority(os.PRIO_PROCESS, sleeper.pid, 17)
    put_behind(sleeper.pid)
    assert niceness(sleeper.pid) == 17


def test_one_that_has_gone_is_no_error() -> None:
    process = subprocess.Popen(["true"], start_new_session=True)
    process.wait()
    put_behind(process.pid)


def test_a_driver_gives_way_from_its_first_second() -> None:
    program = (
        "import os, orchestrator.app.drive as wiring; from orchestrator.cli import internal; "
        "wiring.drive = lambda *_: os.getpriority(os.PRIO_PROCESS, 0); print(internal.drive(1))"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    assert int(done.stdout) == max(BEHIND, niceness(os.getpid()))
