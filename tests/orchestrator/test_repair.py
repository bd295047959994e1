"""A record that lost or garbled something is put right from the trials' checkpoints and from its own curves."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

import workloads
from orchestrator.board import leaderboard
from orchestrator.cli.main import app
from orchestrator.lifecycle import TRIAL_ENDS, Actor, SweepState, TrialState
from orchestrator.planning import config_hash
from orchestrator.records import NewTrial, Perturbation, Report, Sweep
from orchestrator.settings import Settings
from orchestrator.store import Store, open_store
from orchestrator.store import schema as t
from tests.support.builders import NOW, a_sweep
from workloads.checkpoint_files import at_step

TRIALS = 2


CONFIG = {
    "task": {"name": "bytes_lm"},
    "model": {"d_model": 8, "n_layers": 1, "mixer": {"name": "gru"}},
    "training": {
        "batch_size": 2,
        "sequence_length": 16,
        "steps": 4,
        "eval_every": 1,
        "keep_checkpoints": 4,
        "figures": False,
    },
}
SPEC = {"name": "a", "metric": {"name": "val_bpb", "goal": "minimize"}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[dict[str, float]]]]:
    """(storage, rows by trial): two trials that were really trained, numbers 1 and 2 of sweep 1."""
    settings = Settings.from_env({"ORCH_HOME": str(tmp_path_factory.mktemp("trained"))})
    rows = [
        list(workloads.train({**CONFIG, "seed": seed}, checkpoint_dir=checkpoints(settings, seed + 1)))
        for seed in range(TRIALS)
    ]
    return settings.storage, rows


def checkpoints(settings: Settings, trial_id: int) -> Path:
    return settings.trial_directory(1, trial_id) / "checkpoints"


@pytest.fixture
def lab(trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, int]]:
    """(record, sweep): these trials as a driver records and ends them."""
    shutil.copytree(trained[0], tmp_path / "artifacts")
    monkeypatch.setenv("ORCH_HOME", str(tmp_path))
    for name in ("ORCH_URL", "ORCH_DATABASE_URL", "ORCH_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    settings = Settings.from_env()
    store = open_store(settings.database_url)
    sweep = started(store, "a", [a_new_trial(seed) for seed in range(TRIALS)])
    for trial, rows in zip(store.trials.trials(sweep.id), trained[1], strict=True):
        report(store, trial.id, rows, checkpoints(settings, trial.id))
        store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)
    sweep = store.sweeps.sweep(sweep.id)
    store.sweeps.move_sweep(sweep, SweepState.SUCCEEDED, actor=Actor.COORDINATOR, reason="", now=NOW)
    yield store, sweep.id
    store.close()


def a_new_trial(seed: int, **words: Any) -> NewTrial:
    return NewTrial(number=seed, seed=seed, config=CONFIG, config_hash=config_hash(CONFIG), params={}, **words)


def started(store: Store, name: str, trials: list[NewTrial]) -> Sweep:
    sweep = store.sweeps.add_sweep(a_sweep(name=name, spec=SPEC), trials, now=NOW)
    return store.sweeps.move_sweep(sweep, SweepState.STARTING, actor=Actor.COORDINATOR, reason="", now=NOW, slots=1)


def report(store: Store, trial_id: int, rows: Iterable[Mapping[str, float]], directory: Path) -> None:
    """Another attempt of the trial, with these rows."""
    attempt = store.trials.start_trial(trial_id, now=NOW).attempt
    reports = [
        Report(
            trial_id=trial_id,
            attempt=attempt,
            step=int(row["step"]),
            metrics={name: float(value) for name, value in row.items() if name != "step" and math.isfinite(value)},
            at=NOW,
        )
        for row in rows
    ]
    store.trials.record(reports, facts={trial_id: {"checkpoint_path": str(directory)}})


def repaired(*words: str) -> tuple[int, list[dict[str, object]]]:
    """(exit code, findings)."""
    result = CliRunner().invoke(app, ["repair", *words, "--format", "json"])
    return result.exit_code, json.loads(result.stdout)


def everything(store: Store, sweep_id: int) -> tuple[object, ...]:
    trials = store.trials.trials(sweep_id)
    curves = [[store.trials.curve(trial.id, name) for name in sorted(trial.metrics)] for trial in trials]
    return trials, curves


def test_a_sound_record_is_left_alone(lab):
    store, sweep_id = lab
    before = (everything(store, sweep_id), store.sweeps.events(), store.outbox.pending())
    assert repaired("--check") == (0, [])
    assert repaired() == (0, [])
    assert before == (everything(store, sweep_id), store.sweeps.events(), store.outbox.pending())


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("DELETE FROM metric_point WHERE step > 2", "rows of its checkpoint are not in the record: steps 3, 4"),
        ("DELETE FROM metric_point", "rows of its checkpoint are not in the record: steps 1, 2, 3, 4"),
        ("DELETE FROM trial_metric", "the summary of val_bpb is not there, and its points say last "),
        ("UPDATE trial_metric SET best = 0.5, last = 0.5", "the summary of val_bpb is last 0.5 at step 4, best 0.5"),
        ("UPDATE trial SET score = 0.001", "its score is 0.001, and its points say "),
        ("UPDATE trial SET step = 1, step_attempt = 1", "its step is 1, and its points reach 4"),
        ("UPDATE trial SET checkpoint_path = NULL", "it has checkpoints in "),
        ("UPDATE trial SET state = 'running', ended_at = NULL", "it has no end, though its sweep has one"),
    ],
)
def test_what_was_lost_or_garbled_is_told_by_check_and_put_right_without_it(lab, damage, told):
    store, sweep_id = lab
    whole, board = everything(store, sweep_id), _board(store)
    with store.database.write() as connection:
        connection.exec_driver_sql(damage)
    damaged = everything(store, sweep_id)
    code, found = repaired("--check")
    assert code == 1
    assert {each["trial_id"] for each in found if told in str(each["what"])} == {1, 2}
    assert everything(store, sweep_id) == damaged, "--check only looks"
    code, found = repaired("a")
    assert code == 0
    assert all(each["mended"] for each in found)
    assert repaired("--check") == (0, [])
    if "running" in damage:
        assert {trial.state for trial in store.trials.trials(sweep_id)} <= TRIAL_ENDS
    else:
        assert everything(store, sweep_id) == whole
        assert _board(store) == board


def test_what_cannot_be_mended_is_told_and_left(lab, tmp_path):
    store, sweep_id = lab
    first, second = store.trials.trials(sweep_id)
    for path in Path(str(second.checkpoint_path)).iterdir():
        path.write_bytes(b"torn")
    with store.database.write() as connection:
        point = t.metric_point
        last = sa.and_(point.c.trial_id == first.id, point.c.step == 2, point.c.name == "val_bpb")
        connection.execute(sa.update(point).where(last).values(value=1.5))
    before = everything(store, sweep_id)
    for words in (["--check"], []):
        code, found = repaired(*words)
        told = {(each["trial_id"], each["mended"]): str(each["what"]) for each in found}
        assert code == 1
        assert told[second.id, False].startswith("there is no whole checkpoint in ")
    assert everything(store, sweep_id)[1] == before[1], "the record's word stands where two differ"


@pytest.mark.parametrize("planned", [True, False], ids=["forked", "start_from"])
def test_the_rows_of_a_parent_are_not_its_childs(lab, planned):
    store, _ = lab
    settings = Settings.from_env()
    parent = {"parent_trial_id": 1, "parent_step": 2}
    sweep = started(store, "child", [a_new_trial(7, **parent if planned else {})])
    (child,) = store.trials.trials(sweep.id)
    if not planned:
        store.trials.adopt_trial(child.id, **parent)
    directory = settings.trial_directory(sweep.id, child.id) / "checkpoints"
    start = at_step(checkpoints(settings, 1), 2)
    report(
        store, child.id, workloads.train({**CONFIG, "seed": 7}, checkpoint_dir=directory, start_from=start), directory
    )
    store.trials.end_trial(child.id, TrialState.SUCCEEDED, reason="", now=NOW)
    sound = everything(store, sweep.id)
    assert repaired("--check") == (0, [])
    assert repaired() == (0, [])
    assert everything(store, sweep.id) == sound
    assert [step for step, _ in store.trials.curve(child.id, "val_bpb")] == [3, 4]
    with store.database.write() as connection:
        connection.execute(sa.delete(t.metric_point).where(t.metric_point.c.trial_id == child.id))
    code, found = repaired()
    assert (code, found[0]["what"]) == (0, "rows of its checkpoint are not in the record: steps 3, 4")
    assert everything(store, sweep.id) == sound


def test_a_perturbed_trial_is_held_against_what_it_trained_since_and_where_it_writes_now(lab):
    store, _ = lab
    settings = Settings.from_env()
    sweep = started(store, "population", [a_new_trial(7)])
    (trial,) = store.trials.trials(sweep.id)
    own = settings.trial_directory(sweep.id, trial.id)
    own.mkdir(parents=True)
    rows = itertools.islice(workloads.train({**CONFIG, "seed": 7}, checkpoint_dir=own / "checkpoints"), 3)
    report(store, trial.id, rows, own / "checkpoints")
    turn = Perturbation(attempt=2, step=3, parent_trial_id=1, parent_step=2, changed={})
    store.trials.perturb_trial(trial.id, turn, config=CONFIG, params={}, reason="", now=NOW)
    assert repaired("--check") == (0, []), "it waits, and has nothing there yet"
    shutil.rmtree(own / "checkpoints")
    start = at_step(checkpoints(settings, 1), 2)
    rows = workloads.train({**CONFIG, "seed": 7}, checkpoint_dir=own / "checkpoints-2", start_from=start)
    report(store, trial.id, rows, own / "checkpoints-2")
    store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)
    sound = everything(store, sweep.id)
    assert repaired("--check") == (0, [])
    assert repaired() == (0, [])
    assert everything(store, sweep.id) == sound
    with store.database.write() as connection:
        lost = sa.and_(t.metric_point.c.trial_id == trial.id, t.metric_point.c.attempt == 2)
        connection.execute(sa.delete(t.metric_point).where(lost))
        before = {"checkpoint_path": str(own / "checkpoints")}
        connection.execute(sa.update(t.trial).where(t.trial.c.id == trial.id).values(before))
    code, found = repaired()
    assert code == 0
    assert [each["what"] for each in found][:2] == [
        f"it has checkpoints in {own / 'checkpoints-2'}, and the record {own / 'checkpoints'}",
        "rows of its checkpoint are not in the record: steps 3, 4",
    ]
    assert everything(store, sweep.id) == sound
    for path in (own / "checkpoints-2").iterdir():
        path.write_bytes(b"torn")
    code, found = repaired("--check")
    assert (code, found[0]["what"]) == (1, f"there is no whole checkpoint in {own / 'checkpoints-2'}")


def _board(store: Store) -> object:
    return leaderboard(store.sweeps, store.board)
