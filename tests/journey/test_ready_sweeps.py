"""The smoke profile of every ready sweep runs through the service, from its file to its leaderboard."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli.client import Client
from tests.journey.conftest import ROOT
from tests.journey.test_cli import wait_for

pytestmark = [pytest.mark.journey, pytest.mark.timeout(900)]

FILES = sorted((ROOT / "sweeps").glob("*.yaml"), key=lambda path: path.stem)


def test_the_smoke_profile_of_every_ready_sweep_runs(service):
    made = {path.stem: _submitted(service, path) for path in FILES}
    client = Client(service.running["coordinator_url"], (service.home / "token").read_text().strip())

    def over() -> bool:
        return all(client.sweep(str(sweep_id)).is_over for sweep_id in made.values())

    wait_for(over, 800)
    for stem, sweep_id in made.items():
        document = client.sweep(str(sweep_id))
        told = [(trial.state, trial.reason) for trial in document.trials]
        assert {state for state, _ in told} == {"succeeded"}, (stem, told)
        assert all(document.metric in trial.metrics for trial in document.trials), stem
        assert len(client.leaderboard(sweep=str(sweep_id)).rows) == len(document.trials)


def _submitted(service, path: Path) -> int:
    return service.json("submit", str(path), "--profile", "smoke")["sweep_id"]
