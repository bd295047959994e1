"""Requests made up from the OpenAPI document: no answer that it does not tell of, and never a failure of the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from orchestrator.web.service import Service
from tests.orchestrator.web.conftest import SECRET
from tests.orchestrator.web.test_api import finish, submit
from tests.support.listening import listening

HOLD = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "ignored_auth",
)


@pytest.mark.timeout(900)
def test_schemathesis_finds_no_failure_and_no_answer_that_is_not_documented(
    api: FastAPI, client: TestClient, service: Service, tmp_path: Path
) -> None:
    _populate(client, service)
    with listening(api) as url:
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/api/openapi.json", "--no-color"]
        command += ["--header", f"Authorization: Bearer {SECRET}", "--checks", ",".join(HOLD)]
        command += ["--exclude-path-regex", "/stream$"]  # these do not end before their sweep does
        command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "8", "--seed", "0"]
        command += ["--generation-database", "none", "--suppress-health-check", "all"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=800, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr


def _populate(client: TestClient, service: Service) -> None:
    """What the document's examples name: a sweep that has ended, with a log, and a token."""
    sweep = submit(client, "name: quickstart\nparameters: {training.lr: [1e-3, 1e-2]}\n").json()
    log = service.log_path(sweep["sweep_id"], sweep["trials"][0]["trial_id"])
    log.parent.mkdir(parents=True)
    log.write_text("hello\n")
    finish(service, sweep["sweep_id"])
    client.post("/api/v1/tokens", json={"name": "ada", "role": "viewer"})
