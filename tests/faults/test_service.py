"""The whole service dies, part by part and at once; `orch up` brings it back, and nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from orchestrator.cluster.head import MARK
from orchestrator.lifecycle import TRIAL_ENDS
from orchestrator.store import Store, open_store
from tests.faults.test_trials import undisturbed
from tests.journey.conftest import SWEEP, Shell
from tests.support.ray_cluster import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]


def submitted(shell: Shell, tmp_path: Path, name: str, steps: int, *words: str, every: int = 20) -> dict[str, Any]:
    path = tmp_path / f"{name}.yaml"
    path.write_text(SWEEP.format(name=name, steps=steps, every=every))
    return shell.json("submit", str(path), *words)


@contextmanager
def record(shell: Shell) -> Iterator[Store]:
    """What stands in SQL, whoever is away."""
    store = open_store(f"sqlite:///{shell.home}/orch.db")
    try:
        yield store
    finally:
        store.close()


def reports(shell: Shell, name: str) -> int:
    return sum(trial["step"] for trial in shell.get(f"sweeps/{name}")["trials"])


def of_ray(shell: Shell) -> list[psutil.Process]:
    """All processes of the head, those that lost their parent included."""
    mark = shell.running["ray"]["mark"]
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def ended_once_as_undisturbed(shell: Shell, document: dict[str, Any]) -> None:
    with record(shell) as store:
        sweep_id = document["sweep_id"]
        ends = [
            event.trial_id
            for event in store.sweeps.events(sweep_id=sweep_id, limit=10_000)
            if event.trial_id and event.what.rpartition(" -> ")[2] in TRIAL_ENDS
        ]
        trials = store.trials.trials(sweep_id)
        assert sorted(ends) == [trial.id for trial in trials]
        for trial in trials:
            assert trial.state == "succeeded", trial.reason
            assert store.trials.curve(trial.id, "val_bpb") == undisturbed(trial.config, seed=trial.seed)


def steps_in_mlflow(shell: Shell, run_id: str) -> list[int]:
    url = f"{shell.running['mlflow_url']}/api/2.0/mlflow/metrics/get-history"
    answer = httpx.get(url, params={"run_id": run_id, "metric_key": "val_bpb"}, timeout=60)
    return [point["step"] for point in answer.json().get("metrics", [])]


def test_head_coordinator_and_mlflow_are_killed_at_once(shell: Shell, tmp_path: Path) -> None:
    document = submitted(shell, tmp_path, "doomed", 300)
    wait_for(lambda: reports(shell, "doomed") > 0, "a report")
    coordinator = psutil.Process(shell.running["coordinator"]["pid"])
    os.killpg(shell.running["mlflow"]["pid"], signal.SIGKILL)
    coordinator.kill()
    for process in of_ray(shell):
        process.kill()
    shell.orch("up")
    shell.orch("watch", "doomed")
    ended_once_as_undisturbed(shell, document)
    wanted = list(range(20, 301, 20))
    for trial in shell.json("show", "doomed")["trials"]:
        wait_for(lambda trial=trial: steps_in_mlflow(shell, trial["mlflow_run_id"]) == wanted, "the curve in MLflow")


def gone(process: psutil.Process) -> None:
    wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, f"the end of {process}")


SIGNALS = (signal.SIGINT, signal.SIGTERM)


def test_each_part_may_be_interrupted_or_terminated(shell: Shell, tmp_path: Path) -> None:
    document = submitted(shell, tmp_path, "tough", 600)

    def parts(word: str) -> Callable[[], list[psutil.Process]]:
        return lambda: [p for p in of_ray(shell) if any(a == word or f"ray::{word}" in a for a in p.cmdline())]

    for number in SIGNALS:
        for word in ("RayTrainWorker", "drive"):
            before = reports(shell, "tough")
            wait_for(lambda before=before: reports(shell, "tough") > before, "a report")
            wait_for(parts(word), word)[0].send_signal(number)
        for part in ("coordinator", "mlflow"):
            process = psutil.Process(shell.running[part]["pid"])
            process.send_signal(number)
            gone(process)
            shell.orch("up")
    root = psutil.Process(shell.running["mlflow"]["pid"])
    left_behind = root.children(recursive=True)
    root.kill()
    gone(root)
    shell.orch("up")
    assert left_behind
    assert not [process for process in left_behind if process.is_running()]
    before = reports(shell, "tough")
    wait_for(lambda: reports(shell, "tough") > before, "a report")
    head = psutil.Process(shell.running["ray"]["pid"])
    head.send_signal(signal.SIGTERM)
    gone(head)
    shell.orch("up")
    shell.orch("watch", "tough")
    ended_once_as_undisturbed(shell, document)


def test_rays_head_is_interrupted(shell: Shell, tmp_path: Path) -> None:
    """The process at its root alone: what becomes of the others is Ray's affair, and then that of `orch up`."""
    document = submitted(shell, tmp_path, "headless", 300)
    wait_for(lambda: reports(shell, "headless") > 0, "a report")
    before = of_ray(shell)
    head = psutil.Process(shell.running["ray"]["pid"])
    head.send_signal(signal.SIGINT)
    gone(head)
    shell.orch("up")
    assert not [process for process in before if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    shell.orch("watch", "headless")
    ended_once_as_undisturbed(shell, document)
