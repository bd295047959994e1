"""Extending and forking real trials on a real cluster: bit for bit where it should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.lifecycle import TrialState
from orchestrator.lineage import Means, extend, fork
from orchestrator.records import Sweep, Trial
from tests.support.clock import FakeClock
from tests.support.ray_cluster import PATIENCE_S, Lab, tiny_config
from workloads.checkpoint import load
from workloads.checkpoint_files import at_step

CONSTANT: dict[str, Any] = {"schedule": "constant", "warmup_steps": 2, "eval_every": 10}


def driven(lab: Lab, *sweeps: Sweep) -> list[list[Trial]]:
    """The trials of sweeps that ran side by side, ended."""
    drivers = [lab.drive(sweep) for sweep in sweeps]
    assert [driver.wait(timeout=PATIENCE_S) for driver in drivers] == [0] * len(drivers)
    found = [lab.trials(sweep) for sweep in sweeps]
    assert {trial.state for trials in found for trial in trials} == {TrialState.SUCCEEDED}, found
    return found


def weights(trial: Trial, step: int) -> dict[str, Any]:
    assert trial.checkpoint_path is not None
    return load(at_step(Path(trial.checkpoint_path), step))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool((a == b).all()) if hasattr(a, "all") else a == b


def test_an_extended_trial_and_a_fork_with_nothing_changed_are_the_undisturbed_run(lab: Lab) -> None:
    configs = [tiny_config(**CONSTANT, steps=steps) for steps in (20, 40)]
    (first,) = driven(lab, lab.add(configs, slots=1, seeds={"values": [0]}))
    short, whole = first
    assert short.identity is not None
    means = Means(lab.store.sweeps, lab.store.trials, FakeClock())
    longer = extend(f"t{short.id}", 40, user="ada", means=means)
    children = fork(whole.id, 30, [], 2, user="ada", means=means)
    (extended,), (same_seed, other_seed) = driven(lab, lab.start(longer, 1), lab.start(children, 1))

    for child, steps in ((extended, [30, 40]), (same_seed, [40])):
        curve = dict(lab.store.trials.curve(child.id, "val_bpb"))
        undisturbed = dict(lab.store.trials.curve(whole.id, "val_bpb"))
        assert curve == {step: undisturbed[step] for step in steps}
        for part in ("model", "optimizer", "rng"):
            assert same(weights(child, 40)[part], weights(whole, 40)[part]), part
        assert (child.parent_trial_id, child.parent_step) in ((short.id, 20), (whole.id, 30))
        assert child.identity not in (None, whole.identity)
    assert lab.store.trials.curve(other_seed.id, "val_bpb") != lab.store.trials.curve(same_seed.id, "val_bpb")
    assert f"starts from Parent(trial_id={short.id}, step=20" in (lab.directory(extended) / "log.txt").read_text()
