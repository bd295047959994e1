"""`start_from: best of SWEEP` over a real store and real checkpoint files; no training."""

from pathlib import Path

import pytest

from orchestrator.cluster.origin import Origin
from orchestrator.lifecycle import TrialState
from orchestrator.records import Sweep
from orchestrator.store import Store, open_store
from tests.support.builders import NOW, a_report, a_sweep, a_trial
from workloads.checkpoint_files import digest
from workloads.errors import CheckpointError


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/orch.db")
    yield opened
    opened.close()


def a_checkpoint(directory: Path, step: int) -> None:
    directory.mkdir(exist_ok=True)
    path = directory / "new"
    path.write_text(f"{directory.name} at {step}")
    path.rename(directory / f"step-{step:09d}-{digest(path)}.ckpt")


def finished(store: Store, directory: Path, scores: dict[tuple[str, int], list[float]], **words: object) -> Sweep:
    """A sweep whose trials, by configuration and seed, reported these values at steps 10, 20, ... with checkpoints."""
    trials = [
        a_trial(n, config_hash=name, seed=seed, config={"training": {"steps": 100}})
        for n, (name, seed) in enumerate(scores)
    ]
    sweep = store.sweeps.add_sweep(a_sweep(spec=words), trials, now=NOW)
    for trial, values in zip(store.trials.trials(sweep.id), scores.values(), strict=True):
        store.trials.start_trial(trial.id, now=NOW)
        for step, value in enumerate(values, start=1):
            a_checkpoint(directory / str(trial.id), 10 * step)
            report = a_report(trial.id, 10 * step, val_bpb=value)
            store.trials.record([report], facts={trial.id: {"checkpoint_path": str(directory / str(trial.id))}})
        store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)
    return sweep


def child_of(store: Store, other: Sweep) -> Sweep:
    return store.sweeps.add_sweep(a_sweep(spec={"start_from": f"best of {other.id}"}), [a_trial(0)], now=NOW)


def parent(store: Store, sweep: Sweep) -> tuple[int | None, int | None]:
    origin = Origin(sweep, store.sweeps, store.trials)
    adopted = origin.adopt(store.trials.trials(sweep.id)[0])
    assert origin.adopt(adopted) == adopted == store.trials.trial(adopted.id)
    return adopted.parent_trial_id, adopted.parent_step


def test_trials_start_from_the_best_trial_of_the_best_configuration(store, tmp_path):
    lucky = {("a", 0): [9.0, 1.0], ("a", 1): [9.0, 9.0], ("b", 0): [9.0, 3.0], ("b", 1): [9.0, 2.0]}
    other = finished(store, tmp_path, lucky)
    best = store.trials.trials(other.id)[3]
    assert parent(store, child_of(store, other)) == (best.id, 20)
    assert any(path.name.startswith("kept-000000020") for path in Path(best.checkpoint_path).iterdir())


def test_where_the_best_of_a_curve_counts_its_checkpoint_is_taken(store, tmp_path):
    other = finished(store, tmp_path, {("a", 0): [1.0, 5.0]}, metric={"aggregate": "best"})
    assert parent(store, child_of(store, other))[1] == 10


def test_a_sweep_that_starts_from_nothing_leaves_its_trials_as_they_are(store):
    sweep = store.sweeps.add_sweep(a_sweep(), [a_trial(0)], now=NOW)
    assert parent(store, sweep) == (None, None)


def test_nothing_to_start_from_is_told(store):
    other = store.sweeps.add_sweep(a_sweep(name="empty"), [a_trial(0)], now=NOW)
    with pytest.raises(CheckpointError, match=r"\(empty\) has no trial with a result"):
        Origin(child_of(store, other), store.sweeps, store.trials)
