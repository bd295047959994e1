"""The database goes away under a sweep that runs: its driver waits, and nothing is lost or written twice."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from orchestrator.cluster.head import Head
from orchestrator.lifecycle import TrialState
from tests.faults.test_trials import undisturbed
from tests.support.postgres import PostgresServer, private_postgres
from tests.support.ray_cluster import PATIENCE_S, Lab, tiny_config, wait_for
from workloads import faults

pytestmark = pytest.mark.faults
LOCKED_S, DOWN_S = 10.0, 5.0
CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """What it has committed outlives its own crash, as it would anywhere."""
    with private_postgres(synchronous_commit="on") as found:
        yield found


def through(lab: Lab, fault: Callable[[], None], fault_directory: Path) -> None:
    """A sweep of two trials in one driver, with the fault in its midst, besides answers that get lost at commits."""
    configs = [tiny_config(steps=120, eval_every=5, lr=lr) for lr in (1e-2, 1e-3)]
    sweep = lab.add(configs, slots=1)
    for point in ("commit", "committed"):
        faults.arm(fault_directory, point, "error", count=10, rate=0.2)
    driver = lab.drive(sweep, ORCH_FAULTS=str(fault_directory))
    wait_for(lambda: lab.trials(sweep)[0].step >= 20, "step 20", driver)
    fault()
    assert driver.wait(timeout=PATIENCE_S) == 0, lab.driver_log(sweep).read_text()[-3000:]
    assert faults.struck(fault_directory, "commit") >= 3
    for trial, config in zip(lab.trials(sweep), configs, strict=True):
        assert (trial.state, trial.attempt, trial.failures) == (TrialState.SUCCEEDED, 1, 0)
        assert lab.store.trials.curve(trial.id, "val_bpb") == undisturbed(config)
    ends = [event.trial_id for event in lab.store.sweeps.events(sweep_id=sweep.id) if event.what.endswith("succeeded")]
    assert sorted(ends) == [trial.id for trial in lab.trials(sweep)]


def test_sqlite_is_locked_for_ten_seconds(lab: Lab, fault_directory: Path) -> None:
    def lock() -> None:
        other = sqlite3.connect(lab.settings.home / "orch.db", isolation_level=None, timeout=30)
        other.execute("BEGIN IMMEDIATE")
        time.sleep(LOCKED_S)
        other.execute("ROLLBACK")
        other.close()

    through(lab, lock, fault_directory)


@pytest.mark.parametrize(
    "by",
    [None, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT],
    ids=["connections cut", "kill -9", "SIGTERM", "SIGINT", "SIGQUIT"],
)
def test_postgresql_goes_away_and_comes_back(
    faulty_head: Head, fault_directory: Path, tmp_path: Path, server: PostgresServer, by: signal.Signals | None
) -> None:
    with server.database() as url:
        lab = Lab.in_home(faulty_head, tmp_path / "home", ORCH_DATABASE_URL=url)

        def step() -> int:
            return lab.trials(lab.store.sweeps.sweeps()[0])[0].step

        def cut() -> None:
            for _ in range(3):
                before = step()
                with psycopg.connect(url, autocommit=True) as admin:
                    assert admin.execute(CUT).fetchall()
                wait_for(lambda before=before: step() > before, "a report after the cut")

        def end(by: signal.Signals) -> None:
            if by is signal.SIGTERM:
                # It lets nobody in and waits for whoever is there, so these are sent away in the end
                with psycopg.connect(url, autocommit=True) as admin:
                    server.process.send_signal(by)
                    time.sleep(DOWN_S)
                    assert server.process.poll() is None
                    admin.execute(CUT)
            server.stop(by)
            time.sleep(DOWN_S)
            server.start()

        try:
            through(lab, cut if by is None else lambda: end(by), fault_directory)
        finally:
            lab.store.close()
