"""The main job through the command line, as a person runs it."""

from __future__ import annotations

import csv
import io
import os
import signal
import stat
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.journey.conftest import Shell

pytestmark = [pytest.mark.journey, pytest.mark.timeout(600)]


def wait_for(condition, timeout_s: float = 120):
    """The first true answer of `condition`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.25)
    raise AssertionError("it did not come true")


def mlflow_metrics(url: str, run_id: str) -> dict[str, float]:
    """Last values of a run, from MLflow's REST API."""
    answer = httpx.get(f"{url}/api/2.0/mlflow/runs/get", params={"run_id": run_id}, timeout=30)
    answer.raise_for_status()
    return {each["key"]: each["value"] for each in answer.json()["run"]["data"]["metrics"]}


def test_submit_starts_the_service_runs_the_sweep_and_answers_with_its_document(service, sweep_file):
    document = service.json("submit", sweep_file("first", steps=12), "--wait")
    assert document["state"] == "succeeded"
    assert document["name"] == "first"
    assert document["ray_job_id"]
    assert document["mlflow_run_id"]
    assert len(document["trials"]) == 4
    assert {trial["state"] for trial in document["trials"]} == {"succeeded"}
    assert {(trial["params"]["training.lr"], trial["seed"]) for trial in document["trials"]} == {
        (lr, seed) for lr in (1e-3, 1e-2) for seed in (0, 1)
    }
    for trial in document["trials"]:
        assert trial["step"] == 12
        assert trial["attempts"] == 1
        assert 0 < trial["metrics"]["val_bpb"] < 9
        assert Path(trial["checkpoint_path"]).is_dir()
    status = service.json("status")
    assert {"coordinator_url", "mlflow_url", "ray_dashboard_url", "version", "sweeps"} <= set(status)
    assert httpx.get(status["ray_dashboard_url"], timeout=10).is_success
    assert status["sweeps"]["succeeded"] >= 1
    assert status["sweeps"]["running"] == 0
    for trial in document["trials"]:
        assert mlflow_metrics(status["mlflow_url"], trial["mlflow_run_id"]) == pytest.approx(trial["metrics"])


def test_results_can_be_listed_shown_ranked_and_read(service, sweep_file):
    document = service.json("submit", sweep_file("second"), "--wait")
    trial = document["trials"][0]
    assert service.json("list", "--project", "journey")["sweeps"][0]["name"] == "second"
    assert service.json("show", "second")["sweep_id"] == document["sweep_id"]
    assert service.json("show", f"t{trial['trial_id']}")["metrics"] == trial["metrics"]
    board = service.json("leaderboard", "--sweep", "second")
    assert [row["rank"] for row in board["rows"]] == [1, 2]
    best = board["rows"][0]["metrics"]["val_bpb"]
    assert best["n"] == 2
    assert best["low"] < best["mean"] < best["high"]
    assert best["mean"] <= board["rows"][1]["metrics"]["val_bpb"]["mean"]
    table = list(
        csv.DictReader(io.StringIO(service.orch("leaderboard", "--project", "journey", "--format", "csv").stdout))
    )
    assert float(table[0]["val_bpb.mean"]) <= float(table[1]["val_bpb.mean"])
    assert "step" in service.orch("logs", str(trial["trial_id"]), "-f").stdout
    assert "second" in service.orch("list").stdout


def test_up_is_idempotent_and_the_token_is_its_owners_alone(service):
    service.orch("up")
    before = service.running
    service.orch("up")
    assert service.running == before
    assert stat.S_IMODE((service.home / "token").stat().st_mode) == 0o600
    url = before["coordinator_url"]
    assert httpx.get(f"{url}/api/v1/sweeps").status_code == 401
    assert httpx.get(f"{url}/api/v1/sweeps", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_two_sweeps_submitted_together_share_the_machine(service, sweep_file):
    ids = [service.json("submit", sweep_file(name, steps=400, every=20))["sweep_id"] for name in ("left", "right")]

    def both_running() -> bool:
        documents = [service.get(f"sweeps/{sweep_id}") for sweep_id in ids]
        assert not all(document["state"] == "succeeded" for document in documents), "they never ran side by side"
        return all(any(trial["state"] == "running" for trial in document["trials"]) for document in documents)

    wait_for(both_running)
    for sweep_id in ids:
        service.orch("watch", str(sweep_id))
        trials = service.json("show", str(sweep_id))["trials"]
        assert [trial["state"] for trial in trials] == ["succeeded"] * 4


def test_ctrl_c_while_waiting_detaches_and_cancels_nothing(service, sweep_file):
    service.orch("up")
    process = service.start("submit", sweep_file("detached", steps=100, every=20), "--wait")
    wait_for(lambda: any(s["name"] == "detached" for s in service.get("sweeps")["sweeps"]))
    time.sleep(1)  # well inside the following: the signal must not meet the submission itself
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "orch watch" in err
    service.orch("watch", "detached")
    assert service.json("show", "detached")["state"] == "succeeded"


def test_cancel_ends_a_running_sweep(service, sweep_file):
    service.orch("submit", sweep_file("unwanted", steps=100_000, every=50))
    wait_for(lambda: any(t["state"] == "running" for t in service.get("sweeps/unwanted")["trials"]))
    service.orch("cancel", "unwanted")
    ended = wait_for(lambda: (d := service.get("sweeps/unwanted"))["state"] == "cancelled" and d)
    assert {trial["state"] for trial in ended["trials"]} == {"cancelled"}
    service.orch("cancel", "unwanted")


def test_killing_the_coordinator_loses_and_doubles_nothing(own_service, sweep_file):
    shell = own_service
    shell.orch("submit", sweep_file("survivor", steps=400, every=20))
    wait_for(lambda: any(t["state"] == "running" and t["step"] for t in shell.get("sweeps/survivor")["trials"]))
    os.kill(shell.running["coordinator"]["pid"], signal.SIGKILL)
    assert "orch up" in shell.orch("list", code=3).stderr
    shell.orch("up")
    log = shell.home / "logs" / "coordinator.log"
    wait_for(lambda: "(survivor): adopted: its driver orch-" in log.read_text())
    shell.orch("watch", "survivor")
    document = shell.json("show", "survivor")
    assert document["state"] == "succeeded"
    assert document["attempt"] == 1, "the driver was started a second time"
    assert [trial["state"] for trial in document["trials"]] == ["succeeded"] * 4
    assert [trial["attempts"] for trial in document["trials"]] == [1] * 4
    assert [trial["step"] for trial in document["trials"]] == [400] * 4


def test_down_ends_exactly_what_up_started_and_queued_work_goes_on_afterwards(own_service, sweep_file):
    shell = own_service
    shell.orch("up")
    roots = [psutil.Process(shell.running[name]["pid"]) for name in ("coordinator", "ray", "mlflow")]
    family = [each for root in roots for each in (root, *root.children(recursive=True))]
    shell.orch("submit", sweep_file("durable"))
    assert "ended" in shell.orch("down").stdout
    wait_for(lambda: not any(each.is_running() and each.status() != "zombie" for each in family), 20)
    assert "nothing was running" in shell.orch("down").stdout
    shell.orch("up")
    shell.orch("watch", "durable")
    assert shell.json("show", "durable")["state"] == "succeeded"


def test_two_homes_on_one_machine_do_not_meet(service, own_service, sweep_file):
    homes = {"one": service, "two": own_service}
    documents: dict[str, dict] = {}

    def run(name: str, shell: Shell) -> None:
        documents[name] = shell.json("submit", sweep_file(name, steps=14), "--wait")

    threads = [threading.Thread(target=run, args=pair) for pair in homes.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: document["state"] for name, document in documents.items()} == {"one": "succeeded", "two": "succeeded"}
    assert [trial["shared_from"] for document in documents.values() for trial in document["trials"]] == [None] * 8
    listed = {name: {sweep["name"] for sweep in shell.json("list")["sweeps"]} for name, shell in homes.items()}
    assert "two" not in listed["one"]
    assert "one" not in listed["two"]
    addresses = [shell.running[key] for shell in homes.values() for key in ("coordinator_url", "mlflow_url")]
    assert len(set(addresses)) == 4
