"""Extending, forking and sharing real trials on a real cluster: bit for bit where it should be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.lifecycle import TrialState
from orchestrator.lineage import Means, extend, fork
from orchestrator.records import Sweep, Trial
from orchestrator.sizing import SubprocessSizer
from tests.support.clock import FakeClock
from tests.support.ray_cluster import PATIENCE_S, Lab, tiny_config
from workloads.checkpoint import load
from workloads.checkpoint_files import at_step

WORKLOAD: dict[str, Any] = tiny_config(schedule="constant", warmup_steps=2, eval_every=10)


def a_grid(lab: Lab, name: str, steps: list[int], sizer: SubprocessSizer) -> Sweep:
    """Trials that differ in how long they train."""
    parameters = {"training.steps": steps}
    return lab.submitted(1, sizer=sizer, name=name, workload=WORKLOAD, parameters=parameters)


def driven(lab: Lab, *processes: Sequence[Sweep]) -> None:
    """Sweeps to their ends: those of a process one after the other, processes side by side."""
    drivers = [lab.drive(*sweeps) for sweeps in processes]
    assert [driver.wait(timeout=PATIENCE_S) for driver in drivers] == [0] * len(drivers)
    found = [trial for sweeps in processes for sweep in sweeps for trial in lab.trials(sweep)]
    assert {trial.state for trial in found} == {TrialState.SUCCEEDED}, found


def weights(trial: Trial, step: int) -> dict[str, Any]:
    assert trial.checkpoint_path is not None
    return load(at_step(Path(trial.checkpoint_path), step))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool((a == b).all()) if hasattr(a, "all") else a == b


def test_extended_forked_and_repeated_trials_are_the_undisturbed_run(lab: Lab) -> None:
    with SubprocessSizer() as sizer:
        first = a_grid(lab, "first", [20, 40], sizer)
        driven(lab, [first])
        again = a_grid(lab, "again", [10, 20, 30, 40, 50], sizer)
    short, whole = lab.trials(first)
    means = Means(lab.store.sweeps, lab.store.trials, FakeClock())
    longer = lab.start(extend(f"t{short.id}", 40, user="ada", means=means), 1)
    children = lab.start(fork(whole.id, 30, [], 2, user="ada", means=means), 1)
    driven(lab, [longer, again], [children])
    (extended,), (same_seed, other_seed) = lab.trials(longer), lab.trials(children)

    undisturbed = dict(lab.store.trials.curve(whole.id, "val_bpb"))
    for child, steps in ((extended, [30, 40]), (same_seed, [40])):
        assert dict(lab.store.trials.curve(child.id, "val_bpb")) == {step: undisturbed[step] for step in steps}
        for part in ("model", "optimizer", "rng"):
            assert same(weights(child, 40)[part], weights(whole, 40)[part]), part
        assert (child.parent_trial_id, child.parent_step) in ((short.id, 20), (whole.id, 30))
        assert child.identity not in (None, whole.identity)
    assert lab.store.trials.curve(other_seed.id, "val_bpb") != lab.store.trials.curve(same_seed.id, "val_bpb")
    assert f"starts from Parent(trial_id={short.id}, step=20" in (lab.directory(extended) / "log.txt").read_text()

    # Of the five cells of the second grid, two have run: they are shared, and exactly three are trained
    repeated = lab.trials(again)
    assert [trial.shared_from for trial in repeated] == [None, short.id, None, whole.id, None]
    assert [trial.attempt for trial in repeated] == [1, 0, 1, 0, 1]
    for trial in repeated[:4]:
        assert dict(lab.store.trials.curve(trial.id, "val_bpb")) == {
            step: value for step, value in undisturbed.items() if step <= trial.step
        }
