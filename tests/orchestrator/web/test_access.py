"""Who may do what: roles, projects, rotation, revocation, and how much a request may bring."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from orchestrator.access import Role
from orchestrator.cli import control
from orchestrator.cli.sweeps import Format
from orchestrator.errors import ExitCode
from orchestrator.records import Place
from orchestrator.tokens import REMEMBERED_S, Doorkeeper, keep_local
from orchestrator.web.limits import MOST_BYTES
from tests.orchestrator.web.conftest import SECRET, FixedClock
from tests.support.listening import listening

TEXT = "name: {name}\nproject: {project}\nparameters: {{training.lr: [1e-3, 1e-2]}}\n"
CONTROLS = ("cancel", "pause", "resume", "retry")


def submit(client: TestClient, name: str = "example", project: str = "p", **headers: str):
    body = {"text": TEXT.format(name=name, project=project), "user": "somebody"}
    return client.post("/api/v1/sweeps", json=body, headers=headers)


def test_a_viewer_reads_and_changes_nothing(client, bearer):
    trial_id = submit(client).json()["trials"][0]["trial_id"]
    viewer = bearer("vera", Role.VIEWER)
    for path in ("/sweeps", "/sweeps/example", "/sweeps/example/events", f"/trials/{trial_id}", "/leaderboard"):
        assert viewer.get(f"/api/v1{path}").status_code == 200
    assert submit(viewer).status_code == 403
    for what in CONTROLS:
        assert viewer.post(f"/api/v1/sweeps/example/{what}").status_code == 403
    assert viewer.post("/api/v1/sweeps/example/priority", json={"priority": 1}).status_code == 403
    assert len(client.get("/api/v1/sweeps/example/events").json()) == 1


def test_a_submitter_submits_and_controls_and_makes_no_tokens(client, bearer):
    submitter = bearer("sam", Role.SUBMITTER)
    assert submit(submitter).status_code == 201
    assert submitter.post("/api/v1/sweeps/example/pause").status_code == 202
    assert submitter.get("/api/v1/tokens").status_code == 403
    refused = submitter.post("/api/v1/tokens", json={"name": "more", "role": "admin"})
    assert refused.status_code == 403
    assert "is a submitter's, and this takes a admin's" in refused.json()["error"]


def test_the_audit_log_names_the_token_whatever_its_bearer_says(client, bearer):
    submitter = bearer("sam", Role.SUBMITTER)
    submit(submitter)
    submitter.post("/api/v1/sweeps/example/cancel", params={"user": "ada"})
    assert {event["actor"] for event in client.get("/api/v1/sweeps/example/events").json()} == {"sam"}


def test_a_token_of_one_project_sees_and_changes_nothing_of_another(client, bearer, service):
    theirs = submit(client, "theirs", "q").json()
    trial_id = theirs["trials"][0]["trial_id"]
    log = service.log_path(theirs["sweep_id"], trial_id)
    log.parent.mkdir(parents=True)
    log.write_text("a secret\n")
    mine = bearer("sam", Role.SUBMITTER, "p")
    assert submit(mine, "mine", "p").status_code == 201
    for reference in ("theirs", theirs["sweep_id"]):
        for path in ("", "/events"):
            assert mine.get(f"/api/v1/sweeps/{reference}{path}").status_code == 404
        for what in CONTROLS:
            assert mine.post(f"/api/v1/sweeps/{reference}/{what}").status_code == 404
        assert mine.post(f"/api/v1/sweeps/{reference}/slots", json={"slots": 1}).status_code == 404
        assert mine.get("/api/v1/leaderboard", params={"sweep": reference}).status_code == 404
    for path in (f"/trials/{trial_id}", f"/trials/{trial_id}/log"):
        assert mine.get(f"/api/v1{path}").json() == mine.get(f"/api/v1{path}".replace(str(trial_id), "99")).json() | {
            "error": f"no trial {trial_id}; `orch show SWEEP` lists a sweep's trials",
            "complaints": [f"no trial {trial_id}; `orch show SWEEP` lists a sweep's trials"],
        }
    assert [each["name"] for each in mine.get("/api/v1/sweeps").json()["sweeps"]] == ["mine"]
    for path in ("/sweeps", "/leaderboard"):
        assert mine.get(f"/api/v1{path}", params={"project": "q"}).status_code == 403
    refused = submit(mine, "intruder", "q")
    assert refused.status_code == 403
    assert "bound to project 'p'; got project 'q'" in refused.json()["error"]
    assert len(client.get("/api/v1/sweeps/theirs/events").json()) == 1


def test_a_token_of_one_project_is_told_of_no_other_by_a_check_or_the_status(client, bearer, service):
    theirs = submit(client, "theirs", "q").json()
    service.trials.start_trial(theirs["trials"][0]["trial_id"], now=FixedClock().now())
    mine = bearer("vera", Role.VIEWER, "p")
    refused = mine.post("/api/v1/check", json={"text": TEXT.format(name="x", project="q")})
    assert refused.status_code == 403
    assert "bound to project 'p'; got project 'q'" in refused.json()["error"]
    assert mine.post("/api/v1/check", json={"text": TEXT.format(name="x", project="p")}).status_code == 200
    for who, seen in ((mine, False), (bearer("quin", Role.VIEWER, "q"), True), (client, True)):
        status = who.get("/api/v1/status").json()
        assert (sum(status["sweeps"].values()), status["tracking_backlog"]) == (seen, seen)


def test_a_name_means_the_sweep_of_ones_own_project(client, bearer):
    mine = bearer("sam", Role.SUBMITTER, "p")
    number = submit(mine, "same", "p").json()["sweep_id"]
    submit(client, "same", "q")
    assert mine.get("/api/v1/sweeps/same").json()["sweep_id"] == number


def test_the_database_holds_no_secret(client, tmp_path):
    secret = client.post("/api/v1/tokens", json={"name": "ada", "role": "admin"}).json()["token"]
    assert secret.startswith("orch_")
    stored = "\n".join(sqlite3.connect(tmp_path / "orch.db").iterdump())
    assert "ada" in stored
    assert secret not in stored


def test_a_rotated_token_has_one_secret_and_a_revoked_one_none(client, bearer, api):
    ada = bearer("ada", Role.SUBMITTER)
    assert ada.get("/api/v1/sweeps").status_code == 200
    fresh = ada.post("/api/v1/tokens/ada/rotate").json()["token"]  # its bearer may
    assert ada.get("/api/v1/sweeps").status_code == 401
    ada = TestClient(api, headers={"Authorization": f"Bearer {fresh}"})
    assert ada.get("/api/v1/sweeps").status_code == 200
    assert bearer("bob", Role.SUBMITTER).post("/api/v1/tokens/ada/rotate").status_code == 403
    assert client.delete("/api/v1/tokens/ada").json()["revoked_at"]
    assert ada.get("/api/v1/sweeps").status_code == 401
    assert client.delete("/api/v1/tokens/ada").status_code == 404
    bearer("ada", Role.VIEWER)  # the name is free again
    listed = client.get("/api/v1/tokens").json()["tokens"]
    assert [(each["name"], each["revoked_at"] is None) for each in listed] == [
        ("local@here", True),
        ("ada", False),
        ("bob", True),
        ("ada", True),
    ]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "ada", "role": "king"}, 422),
        ({"name": "a b", "role": "viewer"}, 422),
        ({"name": "local@x", "role": "viewer"}, 422),
        ({"name": "ada", "role": "admin", "project": "p"}, 422),
        ({"name": "taken", "role": "viewer"}, 409),
    ],
)
def test_a_token_that_cannot_be_is_refused(client, body, code):
    client.post("/api/v1/tokens", json={"name": "taken", "role": "viewer"})
    answer = client.post("/api/v1/tokens", json=body)
    assert answer.status_code == code
    assert answer.json()["error"]
    assert len(client.get("/api/v1/tokens").json()["tokens"]) == 2


def test_the_local_token_is_changed_by_its_file_alone(client, service):
    assert client.post("/api/v1/tokens/local@here/rotate").status_code == 422
    keep_local("another", "here", store=service.tokens, clock=FixedClock())
    keep_local("third", "elsewhere", store=service.tokens, clock=FixedClock())
    door = Doorkeeper(service.tokens)
    assert door.principal(SECRET) is None
    assert door.principal("another").role is door.principal("third").role is Role.ADMIN


def test_a_revocation_by_another_process_is_seen_within_seconds(service):
    now = [0.0]
    door = Doorkeeper(service.tokens, now_s=lambda: now[0])
    assert door.principal(SECRET)
    service.tokens.revoke_token("local@here", by="ada", now=FixedClock().now())
    assert door.remembered(SECRET)
    now[0] += REMEMBERED_S
    assert door.remembered(SECRET) is None
    assert door.principal(SECRET) is None


@pytest.mark.parametrize("declared", [True, False])
def test_a_request_that_is_too_large_is_413(client, declared):
    body = b"x" * (MOST_BYTES + 1)
    content = body if declared else (body[start : start + 65536] for start in range(0, len(body), 65536))
    answer = client.post("/api/v1/sweeps", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"] == f"the request has more than {MOST_BYTES:,} bytes."


def test_a_log_that_is_a_link_to_another_file_is_not_read(client, service, tmp_path):
    document = submit(client).json()
    trial_id = document["trials"][0]["trial_id"]
    secret = tmp_path / "secret"
    secret.write_text("a secret\n")
    log = service.log_path(document["sweep_id"], trial_id)
    log.parent.mkdir(parents=True)
    log.symlink_to(secret)
    assert client.get(f"/api/v1/trials/{trial_id}/log").json()["text"] == ""
    log.unlink()
    os.mkfifo(log)
    assert client.get(f"/api/v1/trials/{trial_id}/log").json()["text"] == ""
    other = Path(tmp_path / "other")
    other.mkdir()
    (other / "log.txt").write_text("a secret\n")
    log.unlink()
    log.parent.rmdir()
    log.parent.symlink_to(other)
    assert client.get(f"/api/v1/trials/{trial_id}/log").json()["text"] == ""


def test_a_submission_under_one_key_is_made_once(client, bearer):
    first = submit(client, **{"Idempotency-Key": "k"})
    again = submit(client, **{"Idempotency-Key": "k"})
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    other = submit(client, "other", **{"Idempotency-Key": "k"})
    assert other.status_code == 409
    assert "another file before, as sweep 1" in other.json()["error"]
    assert submit(client, **{"Idempotency-Key": "l"}).json()["sweep_id"] == 2
    assert submit(bearer("sam", Role.SUBMITTER), **{"Idempotency-Key": "k"}).json()["sweep_id"] == 3
    assert len(client.get("/api/v1/sweeps").json()["sweeps"]) == 3


def test_the_figures_of_all_projects_take_a_token_that_sees_all(api, bearer):
    assert TestClient(api).get("/metrics").status_code == 401
    assert bearer("prometheus", Role.VIEWER).get("/metrics").status_code == 200
    assert bearer("vera", Role.VIEWER, "p").get("/metrics").status_code == 403


def test_single_trials_are_controlled_by_those_who_see_them(client, bearer):
    [one, two] = [trial["trial_id"] for trial in submit(client).json()["trials"]]
    ada, vera, other = bearer("ada", Role.SUBMITTER), bearer("vera", Role.VIEWER), bearer("o", Role.SUBMITTER, "q")
    for what in CONTROLS:
        assert vera.post(f"/api/v1/trials/{one}/{what}").status_code == 403
        assert other.post(f"/api/v1/trials/{one}/{what}").status_code == 404
    assert ada.post(f"/api/v1/trials/{one}/pause").json()["state"] == "paused"
    assert ada.post(f"/api/v1/trials/{one}/resume").json()["state"] == "pending"
    cancelled = ada.post(f"/api/v1/trials/{two}/cancel").json()
    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "cancelled by ada")
    assert ada.post(f"/api/v1/trials/{two}/retry").json()["state"] == "pending"


def test_admins_alone_drain_nodes(client, bearer, service):
    node = Place(labels={"zone": "a", "ray.io/x": "y"}, memory_bytes=1, node_id="abcdef", name="n1", cpus=2)
    service.launcher.places = (node, dataclasses.replace(node, node_id="abcxyz", name="n2"))
    ada = bearer("ada", Role.SUBMITTER)
    assert ada.post("/api/v1/nodes/n1/drain").status_code == 403
    assert client.post("/api/v1/nodes/abcd/drain").json()["drained"] is True
    assert [(each["name"], each["drained"]) for each in ada.get("/api/v1/nodes").json()] == [
        ("n1", True),
        ("n2", False),
    ]
    assert service.nodes.drained() == {"abcdef"}
    assert client.post("/api/v1/nodes/n1/undrain").json()["drained"] is False
    for unclear in ("abc", "n3"):
        answer = client.post(f"/api/v1/nodes/{unclear}/drain")
        assert answer.status_code == 404
        assert "n1 (abcdef), n2 (abcxyz)" in answer.json()["error"]


def test_what_is_done_with_tokens_and_nodes_is_kept_for_admins_alone(client, bearer, service):
    service.launcher.places = (Place(labels={}, memory_bytes=1, node_id="abcdef", name="n1", cpus=2),)
    sam, vera = bearer("sam", Role.SUBMITTER, "p"), bearer("vera", Role.VIEWER)
    sweep = submit(sam).json()
    assert sam.post("/api/v1/tokens/sam/rotate").status_code == 200
    assert client.delete("/api/v1/tokens/sam").status_code == 200
    assert client.post("/api/v1/nodes/n1/drain", params={"user": "ada"}).status_code == 202
    assert client.post("/api/v1/nodes/n1/undrain", params={"user": "ada"}).status_code == 202
    events = client.get("/api/v1/events").json()
    assert {(each["sweep_id"], each["trial_id"]) for each in events} == {(None, None)}
    told = [(each["actor"], each["what"], each["reason"]) for each in events]
    assert told == [
        ("orch up", "made token local@here", "an admin's, of all projects"),
        ("local@here", "made token sam", "a submitter's, of project p"),
        ("local@here", "made token vera", "a viewer's, of all projects"),
        ("sam", "rotated token sam", ""),
        ("local@here", "revoked token sam", ""),
        ("ada", "drained node n1", "its id is abcdef"),
        ("ada", "undrained node n1", "its id is abcdef"),
    ]
    assert client.get("/api/v1/events", params={"after": events[-2]["event_id"]}).json() == events[-1:]
    for who in (vera, bearer("pia", Role.VIEWER, "p")):
        assert who.get("/api/v1/events").status_code == 403
        seen = who.get(f"/api/v1/sweeps/{sweep['sweep_id']}/events").json()
        assert [each["what"] for each in seen] == ["submitted"]


def test_orch_events_without_a_sweep_prints_what_was_done_with_tokens(api, monkeypatch, capfd):
    with listening(api) as url:
        monkeypatch.setenv("ORCH_URL", url)
        monkeypatch.setenv("ORCH_TOKEN", SECRET)
        assert control.events(format=Format.JSON) == ExitCode.OK
    assert '"what": "made token local@here"' in capfd.readouterr().out


def test_a_change_of_tokens_that_is_refused_leaves_no_event(client, bearer):
    bearer("sam", Role.SUBMITTER)
    before = client.get("/api/v1/events").json()
    assert client.post("/api/v1/tokens", json={"name": "sam", "role": "viewer"}).status_code == 409
    assert client.post("/api/v1/tokens/nobody/rotate").status_code == 404
    assert client.delete("/api/v1/tokens/nobody").status_code == 404
    assert client.get("/api/v1/events").json() == before


@pytest.mark.parametrize("name", ["coordinator", "Driver", "user"])
def test_no_token_signs_as_a_part_of_orch(client, name):
    refused = client.post("/api/v1/tokens", json={"name": name, "role": "viewer"})
    assert refused.status_code == 422
    assert "would sign as a part of orch" in refused.json()["error"]


def test_others_are_not_let_near_before_a_token_is_set(tmp_path):
    environment = {**os.environ, "ORCH_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "orchestrator.cli.main", "serve", "--host", "0.0.0.0", "--port", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == ExitCode.BAD_INPUT
    assert "does not listen on 0.0.0.0" in done.stderr
    assert "openssl rand -hex 32" in done.stderr
    assert "Traceback" not in done.stderr
