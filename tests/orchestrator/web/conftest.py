"""A coordinator's API over a real store, and clients of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from orchestrator import tokens
from orchestrator.access import Role
from orchestrator.store import open_store
from orchestrator.web.api import create_api
from orchestrator.web.service import Service
from tests.support.launcher import FakeLauncher

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SECRET = "secret"


class FixedClock:
    def now(self) -> datetime:
        return NOW


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    store = open_store(f"sqlite:///{tmp_path}/orch.db")
    tokens.keep_local(SECRET, "here", store=store.tokens, clock=FixedClock())
    yield Service(
        sweeps=store.sweeps,
        trials=store.trials,
        board=store.board,
        outbox=store.outbox,
        tokens=store.tokens,
        changes=store.changes,
        nodes=store.nodes,
        launcher=FakeLauncher(gpus=1),
        clock=FixedClock(),
        storage=tmp_path / "artifacts",
        version="1",
        coordinator_url="http://127.0.0.1:1",
        mlflow_url=None,
        ray_dashboard_url=None,
        instance="i",
    )
    store.close()


@pytest.fixture
def api(service: Service) -> FastAPI:
    return create_api(service)


@pytest.fixture
def client(api: FastAPI) -> TestClient:
    """With the local token, an admin's."""
    return TestClient(api, headers={"Authorization": f"Bearer {SECRET}"})


@pytest.fixture
def bearer(api: FastAPI, client: TestClient) -> Callable[..., TestClient]:
    """A client with a token of its own: `bearer("ada", Role.VIEWER, "p")`."""

    def make(name: str, role: Role, project: str | None = None) -> TestClient:
        made = client.post("/api/v1/tokens", json={"name": name, "role": role, "project": project})
        assert made.status_code == 201, made.text
        return TestClient(api, headers={"Authorization": f"Bearer {made.json()['token']}"})

    return make
