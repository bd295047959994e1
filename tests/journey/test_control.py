"""What people change while a sweep runs, and what a higher priority takes: trials go on from their checkpoints."""

from __future__ import annotations

import pytest

from tests.journey.test_cli import wait_for

pytestmark = [pytest.mark.journey, pytest.mark.timeout(600)]


def test_a_sweep_is_paused_resumed_and_preempted_and_every_trial_ends_once(service, sweep_file):
    service.orch("submit", sweep_file("patient", steps=420, every=20))

    def patient() -> dict:
        return service.get("sweeps/patient")

    def advanced() -> bool:
        return any(trial["state"] == "running" and trial["step"] >= 40 for trial in patient()["trials"])

    wait_for(advanced)
    service.orch("pause", "patient")
    wait_for(lambda: patient()["state"] == "paused")
    assert not [trial for trial in patient()["trials"] if trial["state"] == "running"]
    service.orch("pause", "patient")
    service.orch("scale", "patient", "2")
    service.orch("set-priority", "patient", "20")
    service.orch("resume", "patient")
    wait_for(lambda: patient()["state"] == "running" and advanced())

    urgent = service.json("submit", sweep_file("urgent", steps=14, every=7), "--wait")
    assert urgent["state"] == "succeeded"
    service.orch("watch", "patient")
    document = patient()
    assert (document["state"], document["priority"]) == ("succeeded", 20)
    assert [trial["step"] for trial in document["trials"]] == [420] * 4
    events = service.json("events", "patient")
    told = [(event["what"], event["reason"]) for event in events if event["trial_id"] is None]
    assert ("running -> paused", "paused on request") in told
    assert ("paused -> queued", "resumed on request") in told
    assert ("running -> queued", "preempted by urgent of priority 50") in told
    assert sum(event["what"].endswith("-> succeeded") and event["trial_id"] is not None for event in events) == 4
    assert "preempted by urgent" in service.orch("events", "patient").stdout
    assert "nothing to retry" in service.orch("retry", "patient").stdout
