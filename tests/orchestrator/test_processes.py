"""Processes are ended with all that descends from them, and one may go before others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.processes import AHEAD, Process, spawn, stop
from tests.orchestrator.test_two_coordinators import serving, wait_for_line
from tests.support.ray_cluster import wait_for


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own."""
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


GOES_FIRST = """
import os, sys
from orchestrator.processes import go_first, go_in_turn
os.setuid(int(sys.argv[1]))
go_first()
first = os.getpriority(os.PRIO_PROCESS, 0)
go_in_turn(os.getpid())
print(first, os.getpriority(os.PRIO_PROCESS, 0))
"""


def niceness(pid: int = 0) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


@pytest.fixture(scope="module")
def of_the_first() -> int:
    """Niceness of one that goes first, or would: this system may not allow it."""
    command = ["nice", "-n", str(AHEAD - niceness()), "nice"]
    return int(subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout)


def test_a_process_goes_first_where_it_may_and_what_it_starts_does_not(of_the_first: int) -> None:
    command = [sys.executable, "-c", GOES_FIRST, str(os.getuid())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == [str(of_the_first), str(max(of_the_first, 0))]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_who_may_not_go_first_goes_in_turn() -> None:
    command = [sys.executable, "-c", GOES_FIRST, "65534"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == [str(niceness()), str(max(niceness(), 0))]


def test_the_coordinator_goes_first(tmp_path: Path, of_the_first: int) -> None:
    with serving(tmp_path / "home", f"sqlite:///{tmp_path}/orch.db") as (process, log):
        wait_for_line(log, "acting as coordinator")
        assert niceness(process.pid) == of_the_first


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
