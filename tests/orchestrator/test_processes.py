"""Processes are ended with all that descends from them, and give way to the coordinator."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.processes import BEHIND, Process, put_behind, spawn, stop
from tests.support.ray_cluster import wait_for


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


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {child!r}], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""
SLEEPS = "import time; time.sleep(60)"
STAYS = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"


def with_child(tmp_path: Path, child: str) -> tuple[Process, psutil.Process]:
    """A process, and its child in a session of its own that runs `child`."""
    log = tmp_path / "log"
    process = spawn([sys.executable, "-c", PARENT.format(child=child)], log=log)
    wait_for(lambda: log.read_text().endswith("\n"), "the child's number")
    return process, psutil.Process(int(log.read_text()))


@pytest.mark.parametrize("child", [SLEEPS, STAYS])
def test_what_a_killed_process_leaves_behind_is_ended_and_nothing_else(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], child: str
) -> None:
    process, orphan = with_child(tmp_path, child)
    os.kill(process.pid, signal.SIGKILL)
    os.waitpid(process.pid, 0)
    assert orphan.is_running()
    stop([process], grace_s=0.5)
    assert not orphan.is_running()
    assert sleeper.poll() is None


def test_a_child_that_does_not_go_when_asked_is_killed(tmp_path: Path) -> None:
    process, child = with_child(tmp_path, STAYS)
    stop([process], grace_s=0.5)
    assert not child.is_running()
    assert not process.is_alive
    stop([process])
