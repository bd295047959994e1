"""The fault points themselves: nothing while off; once armed, each fault strikes once over all processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.errors import Unreachable
from orchestrator.store import Store
from tests.support.builders import NOW, a_sweep
from workloads import checkpoint, faults

STRUCK: list[str] = []


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that this process looks for faults in."""
    monkeypatch.setattr(faults, "_DIRECTORY", str(tmp_path / "faults"))
    return tmp_path / "faults"


def test_none_strikes_without_the_variable(tmp_path: Path) -> None:
    assert faults.VARIABLE not in os.environ
    faults.arm(tmp_path, "commit", "kill")
    faults.point("commit")
    assert faults.struck(tmp_path) == 0


def test_a_fault_strikes_once_and_in_order_and_at_its_own_point(armed: Path) -> None:
    STRUCK.clear()
    faults.arm(armed, "report", f"{__name__}:_note")
    faults.arm(armed, "report", "error", count=2)
    faults.point("checkpoint")
    faults.point("report")
    assert STRUCK == ["noted"]
    for _ in range(2):
        with pytest.raises(OSError, match="put at report"):
            faults.point("report")
    faults.point("report")
    assert (faults.struck(armed), faults.struck(armed, "report"), faults.struck(armed, "commit")) == (3, 3, 0)


def test_rate_and_delay(armed: Path) -> None:
    faults.arm(armed, "heartbeat", "delay", rate=0.0)
    faults.arm(armed, "heartbeat", "delay", rate=0.3, count=50, delay_s=0.001)
    began = time.perf_counter()
    for _ in range(20):
        faults.point("heartbeat")
    taken = faults.struck(armed)
    assert 0 < taken <= 20
    assert time.perf_counter() - began >= 0.001 * taken


def test_of_many_processes_one_takes_it(tmp_path: Path) -> None:
    faults.arm(tmp_path, "report", "error", count=3)
    code = (
        "from workloads import faults\nmet = 0\nfor _ in range(5):\n"
        "    try: faults.point('report')\n    except OSError: met += 1\nprint(met)"
    )
    command = [sys.executable, "-c", code]
    env = os.environ | {faults.VARIABLE: str(tmp_path)}
    running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sum(int(each.communicate(timeout=60)[0]) for each in running) == 3


def test_a_transaction_that_fails_at_its_commit_is_undone_and_one_after_it_is_not(armed: Path, store: Store) -> None:
    faults.arm(armed, "commit", "error")
    with pytest.raises(Unreachable, match="does not answer"):
        store.sweeps.add_sweep(a_sweep(), [], now=NOW)
    assert store.sweeps.sweeps() == []
    faults.arm(armed, "committed", "error")
    with pytest.raises(Unreachable):
        store.sweeps.add_sweep(a_sweep(), [], now=NOW)
    assert len(store.sweeps.sweeps()) == 1


def test_a_checkpoint_that_fails_leaves_none(armed: Path, tmp_path: Path) -> None:
    faults.arm(armed, "checkpoint", "error")
    with pytest.raises(OSError, match="checkpoint"):
        checkpoint.save(tmp_path / "checkpoints", 1, {}, keep=1, best=False)
    assert not (tmp_path / "checkpoints").exists()
    checkpoint.save(tmp_path / "checkpoints", 1, {}, keep=1, best=False)


def test_an_unknown_point_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are dispatch, heartbeat"):
        faults.arm(tmp_path, "comit", "kill")


def _note() -> None:
    STRUCK.append("noted")
