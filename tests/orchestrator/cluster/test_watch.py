"""What looks after a trial in its worker; tests/faults has it with trials that hang, leak and fork."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading

import pytest

from orchestrator.cluster import watch
from orchestrator.cluster.watch import Bounds, Watch, own_memory_bytes


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.01)


def test_silence_is_told_once_and_waiting_for_others_is_none() -> None:
    told: queue.Queue[str] = queue.Queue()
    with Watch(Bounds(heartbeat_s=0.05), told.put) as watched:
        with watched.waiting():
            assert not threading.Event().wait(0.3)
            assert told.empty()
        assert "it hangs: no step for 0 s" in told.get(timeout=30)
    with pytest.raises(queue.Empty):
        told.get(timeout=0.1)


def test_beats_keep_it_quiet_and_memory_beyond_the_limit_does_not() -> None:
    told: queue.Queue[str] = queue.Queue()
    with Watch(Bounds(heartbeat_s=60, memory_bytes=own_memory_bytes() + 300_000_000), told.put) as watched:
        watched.beat()
        with pytest.raises(queue.Empty):
            told.get(timeout=0.1)
        taken = bytearray(b"x" * 400_000_000)
        assert "`resources.memory` allows" in told.get(timeout=30)
        del taken


CHILDREN = """
import subprocess, sys, time
from orchestrator.cluster.watch import end_children
code = "import subprocess, sys; print(1, flush=True); subprocess.run(['sleep', '1000'])"
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
child.stdout.readline()
time.sleep(0.2)
print(len(end_children()), child.wait())
"""


def test_children_that_are_left_are_ended_with_their_own() -> None:
    # In a process of its own: this one has children that belong to other tests
    out = subprocess.run([sys.executable, "-c", CHILDREN], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["2", "-9"]
