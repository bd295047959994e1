"""What trials do wrong, done in earnest on a real cluster: each fault costs what it must, and no result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

import workloads
from orchestrator.lifecycle import TrialState
from tests.faults.acts import FLOOD_BYTES, SLEEPER
from tests.support.ray_cluster import PATIENCE_S, Lab, tiny_config, wait_for
from workloads import faults

ACTS = "tests.faults.acts"
CONFIG = {"steps": 60, "eval_every": 10, "checkpoint_every": 5, "keep_checkpoints": 3}


def undisturbed(config: Mapping[str, Any], seed: int = 0) -> list[tuple[int, float]]:
    """The curve of val_bpb when nothing goes wrong, by workloads.train alone."""
    return _trained(json.dumps({**config, "seed": seed}, sort_keys=True)).copy()


@cache
def _trained(config: str) -> list[tuple[int, float]]:
    # Many tests train the same
    torch.set_num_threads(1)
    return [(int(row["step"]), float(row["val_bpb"])) for row in workloads.train(json.loads(config))]


def test_one_trial_that_meets_everything_ends_once_with_the_undisturbed_result(lab: Lab, fault_directory: Path) -> None:
    own = ("it hangs: no step for", "GB of memory, and `resources.memory` allows 1.5 GB", "File too large")
    for act in (f"{ACTS}:hang", f"{ACTS}:leak", f"{ACTS}:fork_and_die", f"{ACTS}:flood", f"{ACTS}:fork"):
        faults.arm(fault_directory, "heartbeat", act)
    faults.arm(fault_directory, "report", f"{ACTS}:tear_checkpoint_and_die")
    faults.arm(fault_directory, "checkpoint", f"{ACTS}:fill_the_disk")
    config = tiny_config(**CONFIG)
    resources = {"workers": 1, "cpu": 1, "gpu": 0, "memory": "1500MB"}
    sweep = lab.add([config], slots=1, retries=len(own), heartbeat_timeout="12s", resources=resources)
    assert lab.drive(sweep).wait(timeout=PATIENCE_S) == 0
    [trial] = lab.trials(sweep)
    reasons = [event.reason for event in lab.store.sweeps.events(sweep_id=sweep.id) if event.trial_id == trial.id]
    assert faults.struck(fault_directory) == 7, reasons
    assert (trial.state, trial.failures, trial.step) == (TrialState.SUCCEEDED, len(own), 60), reasons
    for words in own:
        assert sum(words in reason for reason in reasons) == 1, reasons
    assert trial.attempt == 1 + len(own) + 2, "besides its own failures it lost its worker twice"
    assert lab.store.trials.curve(trial.id, "val_bpb") == undisturbed(config)
    log = lab.directory(trial) / "log.txt"
    assert log.stat().st_size > FLOOD_BYTES
    assert "is damaged; trying the one before" in log.read_text()
    assert "in hang" in log.read_text(), "where it hung"
    wait_for(lambda: not _sleepers(), "the end of what it had forked")


def _sleepers() -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["cmdline"]) if SLEEPER in (each.info["cmdline"] or ())]
