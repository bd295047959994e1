"""The MLflow that `orch up` starts hangs, or answers with errors: trials go on, and it is told all of it afterwards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest

from orchestrator.lifecycle import TrialState
from tests.faults.test_service import record, steps_in_mlflow, submitted
from tests.journey.conftest import Shell
from tests.support.damaged_mlflow import unreadable_rows
from tests.support.live_service import answers
from tests.support.ray_cluster import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
STEPS, EVERY = 600, 20
# Two requests of the courier, which waits for 15 s for an answer, and what lies between them
AWAY_S = 40.0


@contextmanager
def hanging(shell: Shell) -> Iterator[None]:
    """Takes connections and says nothing: all its processes stand still."""
    group = shell.running["mlflow"]["pid"]
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)


def answering_500(shell: Shell) -> AbstractContextManager[None]:
    return unreadable_rows(shell.home / "mlflow.db")


def ask(shell: Shell, path: str, document: object) -> httpx.Response:
    return httpx.post(f"{shell.running['mlflow_url']}/api/2.0/mlflow/{path}", json=document, timeout=60)


@pytest.mark.parametrize(("away", "status"), [(hanging, None), (answering_500, 500)], ids=["hangs", "500"])
def test_mlflow_is_told_all_of_it_afterwards(
    shell: Shell, tmp_path: Path, away: Callable[[Shell], AbstractContextManager[None]], status: int | None
) -> None:
    wanted = list(range(EVERY, STEPS + 1, EVERY))
    wait_for(lambda: answers(f"{shell.running['mlflow_url']}/health"), "MLflow's server")
    document = submitted(shell, tmp_path, "told", STEPS)

    def known() -> str | None:
        trial = shell.get("sweeps/told")["trials"][0]
        return (
            trial["mlflow_run_id"]
            if trial["mlflow_run_id"] and steps_in_mlflow(shell, trial["mlflow_run_id"])
            else None
        )

    run_id = wait_for(known, "the beginning of a curve in MLflow")
    assert shell.get("sweeps/told")["state"] == "running"
    with away(shell):
        until = time.monotonic() + AWAY_S
        if status is not None:
            metric = {"key": "val_bpb", "value": 0.0, "timestamp": 0, "step": 0}
            assert ask(shell, "runs/log-batch", {"run_id": run_id, "metrics": [metric]}).status_code == status
        shell.orch("watch", "told")
        time.sleep(max(0.0, until - time.monotonic()))
        with record(shell) as store:
            trials = store.trials.trials(document["sweep_id"])
            for trial in trials:
                assert (trial.state, trial.attempt, trial.failures) == (TrialState.SUCCEEDED, 1, 0)
                assert [step for step, _ in store.trials.curve(trial.id, "val_bpb")] == wanted
            kept = {item.trial_id for item in store.outbox.pending(limit=10_000)}
            assert kept >= {None, trials[-1].id}, "the sweep's end, and what its last trial has told"
    with record(shell) as store:
        wait_for(lambda: not store.outbox.pending(), "an empty outbox")
        for trial in store.trials.trials(document["sweep_id"]):
            [run] = runs_of(shell, run_id, trial.id)
            assert (run["info"]["run_id"], run["info"]["status"]) == (trial.mlflow_run_id, "FINISHED")
            assert steps_in_mlflow(shell, run["info"]["run_id"]) == wanted


def runs_of(shell: Shell, run_id: str, trial_id: int) -> list[dict[str, dict[str, str]]]:
    """Every run that a trial has got, in the experiment of this run."""
    url = f"{shell.running['mlflow_url']}/api/2.0/mlflow/runs/get"
    experiment = httpx.get(url, params={"run_id": run_id}, timeout=60).json()["run"]["info"]["experiment_id"]
    asked = {"experiment_ids": [experiment], "filter": f"tags.`orch.trial_id` = '{trial_id}'"}
    return ask(shell, "runs/search", asked).json()["runs"]
