"""A sweep of fifty trials is stopped, eight of them at work: soon nothing of it is left on the cluster."""

from __future__ import annotations

import time

import pytest

from orchestrator.lifecycle import Actor, SweepState, TrialState
from orchestrator.records import DriverStatus
from tests.support.builders import NOW
from tests.support.ray_cluster import Lab, held_on, tiny_config, train_workers, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
TRIALS, AT_ONCE = 50, 8
LEFT_S = 5


def test_fifty_trials_that_are_stopped_leave_no_actor_and_no_placement_group(lab: Lab) -> None:
    resources = {"workers": 1, "cpu": 2 / AT_ONCE, "gpu": 0}
    configs = [tiny_config(steps=1_000_000, eval_every=1000)] * TRIALS
    sweep = lab.add(configs, slots=AT_ONCE, resources=resources)
    launcher = lab.launcher()
    launcher.start(sweep)
    wait_for(lambda: len(train_workers(lab.head)) == AT_ONCE, f"{AT_ONCE} workers")
    held = held_on(lab.head)
    assert sum("placement_groups" in each for each in held) >= AT_ONCE
    assert sum("RayTrainWorker" in each for each in held) == AT_ONCE, held

    lab.store.sweeps.move_sweep(sweep, SweepState.CANCELLED, actor=Actor.COORDINATOR, reason="not needed", now=NOW)
    launcher.stop(sweep)
    wait_for(lambda: launcher.status(sweep) in (DriverStatus.STOPPED, DriverStatus.DONE), "the driver's end")
    ended_s = time.monotonic()
    wait_for(lambda: not held_on(lab.head) and not train_workers(lab.head), "the end of all that it had")
    took_s = time.monotonic() - ended_s
    assert took_s <= LEFT_S
    assert {trial.state for trial in lab.trials(sweep)} == {TrialState.CANCELLED}
