"""A record that lost or garbled something is put right from the trials' checkpoints and from its own curves."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

import workloads
from orchestrator.board import leaderboard
from orchestrator.cli.main import app
from orchestrator.lifecycle import TRIAL_ENDS, Actor, SweepState, TrialState
from orchestrator.planning import config_hash
from orchestrator.records import NewTrial, Report
from orchestrator.settings import Settings
from orchestrator.store import Store, open_store
from orchestrator.store import schema as t
from tests.support.builders import NOW, a_sweep

TRIALS = 2


CONFIG = {
    "task": {"name": "bytes_lm"},
    "model": {"d_model": 8, "n_layers": 1, "mixer": {"name": "gru"}},
    "training": {"batch_size": 2, "sequence_length": 16, "steps": 4, "eval_every": 1, "figures": False},
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
    new = {"config": CONFIG, "config_hash": config_hash(CONFIG), "params": {}, "identity": None}
    trials = [NewTrial(number=seed, seed=seed, **new) for seed in range(TRIALS)]
    sweep = store.sweeps.add_sweep(a_sweep(name="a", spec=SPEC), trials, now=NOW)
    sweep = store.sweeps.move_sweep(sweep, SweepState.STARTING, actor=Actor.COORDINATOR, reason="", now=NOW, slots=1)
    for trial, rows in zip(store.trials.trials(sweep.id), trained[1], strict=True):
        store.trials.start_trial(trial.id, now=NOW)
        reports = [
            Report(
                trial_id=trial.id,
                attempt=1,
                step=int(row["step"]),
                metrics={name: float(value) for name, value in row.items() if name != "step" and math.isfinite(value)},
                at=NOW,
            )
            for row in rows
        ]
        store.trials.record(reports, facts={trial.id: {"checkpoint_path": str(checkpoints(settings, trial.id))}})
        store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)
    sweep = store.sweeps.sweep(sweep.id)
    store.sweeps.move_sweep(sweep, SweepState.SUCCEEDED, actor=Actor.COORDINATOR, reason="", now=NOW)
    yield store, sweep.id
    store.close()


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


def _board(store: Store) -> object:
    return leaderboard(store.sweeps, store.board)
