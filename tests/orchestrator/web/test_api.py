"""The HTTP door over a real store: who may enter, what each answer is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from orchestrator.lifecycle import TrialState
from orchestrator.packages import pack
from orchestrator.records import Report
from orchestrator.web.api import create_api
from tests.orchestrator.web.conftest import NOW

TEXT = "name: example\nproject: p\nparameters: {training.lr: [1e-3, 1e-2]}\nseeds: 3\n"


def submit(client, text: str = TEXT):
    return client.post("/api/v1/sweeps", json={"text": text, "file": "f.yaml", "user": "ada"})


def finish(service, sweep_id: int, value: float = 2.0) -> None:
    for index, trial in enumerate(service.trials.trials(sweep_id)):
        service.trials.start_trial(trial.id, now=NOW)
        metrics = {"val_bpb": value + index}
        service.trials.record([Report(trial_id=trial.id, attempt=1, step=10, metrics=metrics, at=NOW)])
        service.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW + timedelta(seconds=1))


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}])
def test_only_bearers_of_the_token_enter(service, header):
    stranger = TestClient(create_api(service), headers=header)
    for path in ("/api/v1/sweeps", "/api/v1/status", "/api/v1/trials/1", "/api/v1/leaderboard"):
        assert stranger.get(path).status_code == 401
    assert stranger.get("/healthz").json()["instance"] == "i"


def test_a_good_file_is_queued_with_its_trials(client):
    answer = submit(client)
    assert answer.status_code == 201
    document = answer.json()
    assert (document["state"], document["user"], len(document["trials"])) == ("queued", "ada", 6)
    assert client.get("/api/v1/sweeps/example").json() == document


def test_a_wrong_file_is_422_with_every_complaint_and_nothing_is_queued(client):
    answer = submit(client, TEXT.replace("training.lr", "training.lrr").replace("seeds", "sedes"))
    assert answer.status_code == 422
    assert answer.json()["complaints"][0].startswith("f.yaml:4:1: unknown key 'sedes'")
    assert client.get("/api/v1/sweeps").json()["sweeps"] == []


def test_more_than_the_cluster_has_is_422(client):
    answer = submit(client, TEXT + "resources: {gpu: 2}\n")
    assert answer.status_code == 422
    assert "f.yaml:5:18: a trial asks for 2 GPUs" in answer.json()["error"]


def test_a_cluster_that_is_away_keeps_nobody_from_queueing(client, service):
    service.launcher.away = True
    assert submit(client).status_code == 201
    assert client.get("/api/v1/status").json()["capacity"] is None


@pytest.mark.parametrize("path", ["/sweeps/nothing", "/sweeps/99", "/trials/99", "/trials/99/log", "/sweeps/x/events"])
def test_what_is_not_there_is_404_with_a_message(client, path):
    answer = client.get(f"/api/v1{path}")
    assert answer.status_code == 404
    assert answer.json()["error"]


def test_paths_reach_no_files(client):
    for path in ("/sweeps/..%2f..%2fetc%2fpasswd", "/trials/..%2f1/log"):
        assert client.get(f"/api/v1{path}").status_code in (404, 422)


def test_a_log_is_read_piece_by_piece_until_the_trial_is_over(client, service):
    document = submit(client).json()
    trial_id = document["trials"][0]["trial_id"]
    path = service.log_path(document["sweep_id"], trial_id)
    path.parent.mkdir(parents=True)
    path.write_text("first\n")
    page = client.get(f"/api/v1/trials/{trial_id}/log").json()
    assert (page["text"], page["over"]) == ("first\n", False)
    with path.open("a") as log:
        log.write("second\n")
    finish(service, document["sweep_id"])
    page = client.get(f"/api/v1/trials/{trial_id}/log", params={"offset": page["next_offset"]}).json()
    assert (page["text"], page["over"]) == ("second\n", True)


def test_the_leaderboard_ranks_configurations_by_their_mean_over_seeds(client, service):
    document = submit(client).json()
    finish(service, document["sweep_id"])
    board = client.get("/api/v1/leaderboard", params={"project": "p"}).json()
    assert [row["params"] for row in board["rows"]] == [{"training.lr": 1e-3}, {"training.lr": 1e-2}]
    best = board["rows"][0]["metrics"]["val_bpb"]
    assert (best["mean"], best["n"]) == (3.0, 3)
    assert best["low"] == pytest.approx(3.0 - 2.4841377, abs=1e-6)  # t(0.975, 2) / sqrt(3), by table
    assert best["high"] == pytest.approx(3.0 + 2.4841377, abs=1e-6)


def test_the_leaderboard_goes_on_at_its_cursor(client, service):
    finish(service, submit(client).json()["sweep_id"])
    first = client.get("/api/v1/leaderboard", params={"limit": 1}).json()
    second = client.get("/api/v1/leaderboard", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [page["rows"][0]["rank"] for page in (first, second)] == [1, 2]
    assert second["next_cursor"] is None
    assert client.get("/api/v1/leaderboard", params={"cursor": "x"}).status_code == 422


def test_sweeps_of_one_project_that_share_a_configuration_count_each_seed_once(client, service):
    for value in (5.0, 2.0):
        finish(service, submit(client).json()["sweep_id"], value)
    rows = client.get("/api/v1/leaderboard", params={"project": "p"}).json()["rows"]
    assert [row["metrics"]["val_bpb"]["n"] for row in rows] == [3, 3]
    assert rows[0]["metrics"]["val_bpb"]["mean"] == 3.0


def test_cancel_is_a_wish_and_asking_twice_is_the_same_as_once(client):
    document = submit(client).json()
    for _ in range(2):
        assert client.post("/api/v1/sweeps/example/cancel", params={"user": "ada"}).status_code == 202
    events = client.get(f"/api/v1/sweeps/{document['sweep_id']}/events").json()
    assert [(event["actor"], event["what"]) for event in events] == [("ada", "submitted"), ("ada", "asked to cancel")]


def test_a_sweeps_code_comes_before_its_file(client, service, tmp_path):
    (tmp_path / "mine.py").write_text("x = 1\n")
    package = pack(tmp_path / "mine.py")
    text = f"name: own\nparameters: {{training.lr: [1e-3]}}\ncode: {{package: {package.name}}}\n"
    refused = client.post("/api/v1/sweeps", json={"text": text})
    assert refused.status_code == 422
    assert "has not come here" in refused.json()["error"]
    path = f"/api/v1/code/{package.name}"
    headers = {"Content-Type": "application/octet-stream"}
    assert client.put(path, content=b"nonsense", headers=headers).status_code == 422
    for _ in range(2):
        answer = client.put(path, content=package.content, headers=headers)
        assert (answer.status_code, answer.json()) == (201, {"package": package.name, "files": 1})
    assert client.post("/api/v1/sweeps", json={"text": text}).status_code == 201
    assert client.put("/api/v1/code/..%2f..%2fetc", content=package.content, headers=headers).status_code in (404, 422)
