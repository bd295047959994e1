"""Two coordinators started on one database, as real processes: one acts, the other takes over when that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 120


@contextmanager
def serving(home: Path, database_url: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """(process, log) of a coordinator with no cluster and no tracker: it has nothing to start."""
    log = home / "coordinator.log"
    home.mkdir()
    env = {**os.environ, "ORCH_HOME": str(home), "ORCH_DATABASE_URL": database_url}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.main", "serve"], env=env, stdout=output, stderr=output
        )
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


def wait_for_line(log: Path, words: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while words not in log.read_text():
        assert time.monotonic() < deadline, f"{words!r} is not in:\n{log.read_text()}"
        time.sleep(0.05)


def test_one_acts_and_the_other_takes_over(tmp_path, store, database_url):
    with serving(tmp_path / "a", database_url) as (first, first_log):
        wait_for_line(first_log, "acting as coordinator number 1")
        with serving(tmp_path / "b", database_url) as (second, second_log):
            wait_for_line(second_log, "coordinator number 1 (")
            assert "acting as" not in second_log.read_text()
            first.send_signal(signal.SIGKILL)
            first.wait()
            wait_for_line(second_log, "acting as coordinator number 2, after number 1, which is gone")
            second.send_signal(signal.SIGTERM)
            second.wait(timeout=PATIENCE_S)
    assert (store.lease.see().holder, store.lease.see().number) == ("", 2)
