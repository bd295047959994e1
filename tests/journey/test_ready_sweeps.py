"""Every ready sweep plans, and its smoke profile runs through the service from its file to its leaderboard."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journey.conftest import ROOT
from tests.journey.test_cli import wait_for

pytestmark = [pytest.mark.journey, pytest.mark.timeout(900)]

FILES = sorted((ROOT / "sweeps").glob("*.yaml"), key=lambda path: path.stem)
OVER = {"succeeded", "failed", "cancelled"}


def test_every_ready_sweep_plans_and_its_smoke_profile_runs(service):
    full = {path.stem: service.json("plan", str(path)) for path in FILES}
    assert all(plan["trials"] > 0 and plan["axes"] for plan in full.values())
    made = {path.stem: _submitted(service, path) for path in FILES}

    def over() -> bool:
        states = {sweep["sweep_id"]: sweep["state"] for sweep in service.json("list")["sweeps"]}
        return all(states[sweep_id] in OVER for sweep_id in made.values())

    wait_for(over, 600)
    for stem, sweep_id in made.items():
        document = service.json("show", str(sweep_id))
        told = [(trial["state"], trial["reason"]) for trial in document["trials"]]
        assert {state for state, _ in told} == {"succeeded"}, (stem, told)
        assert all(document["metric"] in trial["metrics"] for trial in document["trials"]), stem
        assert len(service.json("leaderboard", "--sweep", str(sweep_id))["rows"]) == len(document["trials"])
        assert len(document["trials"]) <= full[stem]["trials"]


def _submitted(service, path: Path) -> int:
    return service.json("submit", str(path), "--profile", "smoke")["sweep_id"]
