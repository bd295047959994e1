"""The training loop: what it reports, how it stops, and that an interrupted run is the undisturbed one."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from workloads import ConfigError, train
from workloads.checkpoint import latest, load
from workloads.config import TrainingConfig
from workloads.errors import CheckpointError, TrialDiverged
from workloads.optim import learning_rate

# A real text, and short, so that evaluations take no time
CORPUS = str(Path(__file__).parents[2] / "LICENSE")
TIMING = {"tokens_per_s", "loader_tokens_per_s"}


def a_config(**training: Any) -> dict[str, Any]:
    return {
        "task": {"name": "bytes_lm", "corpus": CORPUS},
        "model": {"d_model": 16, "n_layers": 1, "mixer": "gru", "feedforward": {"name": "dense", "hidden": 16}},
        "training": {
            "steps": 6, "batch_size": 4, "sequence_length": 64, "lr": 1e-2, "warmup_steps": 2, "eval_every": 2,
            "figures": False,
        } | training,
        "seed": 3,
    }  # fmt: skip


def reproducible(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in TIMING} for row in rows]


def test_a_row_is_reported_at_each_evaluation_and_at_the_end():
    rows = list(train(a_config(steps=5)))
    assert [row["step"] for row in rows] == [2, 4, 5]
    assert {"train_loss", "val_loss", "val_bpb", "lr", "grad_norm", *TIMING, "params"} <= rows[0].keys()
    assert all(math.isfinite(value) for row in rows for value in row.values())


def test_the_model_beats_the_unigram_baseline_that_it_reports():
    config = a_config(steps=120, eval_every=120, sequence_length=64, batch_size=16)
    (row,) = train(config | {"model": {"d_model": 48, "n_layers": 1, "mixer": "gru"}})
    assert row["val_bpb"] < 0.75 * row["baseline/unigram"]


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others():
    first, again = (reproducible(list(train(a_config()))) for _ in range(2))
    other = reproducible(list(train(a_config() | {"seed": 4})))
    assert first == again
    assert first != other


def test_rows_tell_on_which_data_they_were_measured(tmp_path: Path):
    (tmp_path / "text").write_text("another text, " * 200)
    other = a_config() | {"task": {"name": "bytes_lm", "corpus": str(tmp_path / "text")}}
    checksums = [next(iter(train(config)))["data_checksum"] for config in (a_config(), a_config(), other)]
    assert checksums[0] == checksums[1] != checksums[2]
    assert float(checksums[0]) == checksums[0]


def test_numbers_do_not_depend_on_what_was_drawn_before(tmp_path: Path):
    first = reproducible(list(train(a_config())))
    torch.manual_seed(99)
    torch.rand(1000)
    assert reproducible(list(train(a_config()))) == first


def test_accumulation_changes_the_numbers_by_rounding_only():
    whole = list(train(a_config()))
    parts = list(train(a_config(accumulate=4)))
    for a, b in zip(whole, parts, strict=True):
        # float32 sums in another order, grown over six Adam steps
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)
        assert a["val_bpb"] == pytest.approx(b["val_bpb"], rel=1e-4)


def test_a_finished_run_resumed_reports_its_last_row_again(tmp_path: Path):
    rows = list(train(a_config(), checkpoint_dir=tmp_path))
    assert list(train(a_config(), checkpoint_dir=tmp_path, resume_from=tmp_path)) == [rows[-1]]


def test_resuming_where_nothing_was_saved_yet_starts_from_the_beginning(tmp_path: Path):
    assert reproducible(list(train(a_config(), resume_from=tmp_path))) == reproducible(list(train(a_config())))


def test_closing_saves_where_the_run_stands(tmp_path: Path):
    rows = train(a_config(checkpoint_every=5), checkpoint_dir=tmp_path)
    assert next(rows)["step"] == 2
    assert latest(tmp_path) is None
    rows.close()
    path = latest(tmp_path)
    assert path is not None
    assert load(path)["step"] == 2


def test_a_checkpoint_of_a_row_is_there_before_the_row_is(tmp_path: Path):
    for row in train(a_config(), checkpoint_dir=tmp_path):
        path = latest(tmp_path)
        assert path is not None
        assert load(path)["step"] == row["step"]


def test_divergence_names_the_step_and_leaves_the_last_good_checkpoint(tmp_path: Path):
    config = a_config(steps=60, lr=1e18, schedule="constant", warmup_steps=4, grad_clip=0, checkpoint_every=1)
    with pytest.raises(TrialDiverged) as caught:
        list(train(config, checkpoint_dir=tmp_path))
    assert 1 < caught.value.step < 60
    assert f"step {caught.value.step}" in str(caught.value)
    path = latest(tmp_path)
    assert path is not None
    assert all(torch.isfinite(tensor).all() for tensor in load(path)["model"].values())


def test_a_loss_that_runs_away_is_divergence_too():
    with pytest.raises(TrialDiverged, match="times its first"):
        list(train(a_config(steps=40, lr=10.0, schedule="constant", warmup_steps=3, divergence_factor=1.2)))


def test_weights_that_break_the_validation_are_divergence_too(tmp_path: Path):
    """The step itself is finite, and what it leaves is not: no row, no checkpoint."""
    config = a_config(steps=9, lr=1e38, schedule="constant", warmup_steps=0, grad_clip=0, eval_every=1)
    with pytest.raises(TrialDiverged, match=r"diverged at step 1: val_bpb is (nan|inf)"):
        list(train(config, checkpoint_dir=tmp_path))
    assert not list(tmp_path.glob("*.ckpt"))


def test_compiled_or_not_the_curve_is_the_same(monkeypatch: pytest.MonkeyPatch):
    """With the front half of the compiler, which is where it fails on what it cannot follow; the other half is slow."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    moe = {"name": "moe", "num_experts": 4, "expert_hidden": 8}
    model = {"model": {"d_model": 16, "n_layers": 1, "mixer": "gru", "feedforward": moe}}
    compiled, plain = (list(train(a_config(steps=2, compile=compiled) | model)) for compiled in (True, False))
    assert compiled[0]["val_bpb"] == pytest.approx(plain[0]["val_bpb"], rel=1e-6)
    assert compiled[0]["grad_norm"] == pytest.approx(plain[0]["grad_norm"], rel=1e-4)


def test_resuming_another_model_is_refused_with_both_named(tmp_path: Path):
    list(train(a_config(), checkpoint_dir=tmp_path))
    other = a_config()
    other["model"]["d_model"] = 24
    with pytest.raises(CheckpointError, match=r"another model.*16.*24"):
        train(other, resume_from=tmp_path)


def test_a_wrong_configuration_is_refused_at_the_call():
    with pytest.raises(ConfigError, match="sequence_lenght"):
        train({"training": {"sequence_lenght": 3}})


def test_a_batch_too_small_to_be_shared_is_refused():
    with pytest.raises(ConfigError, match="batch_size"):
        train(a_config(accumulate=5))


@pytest.mark.parametrize("schedule", ["constant", "cosine", "trapezoid"])
def test_the_learning_rate_warms_up_linearly_and_ends_where_the_schedule_says(schedule: str):
    training = TrainingConfig(steps=100, warmup_steps=10, lr=1.0, schedule=schedule)  # type: ignore[arg-type]
    rates = [learning_rate(step, training) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert rates[-1] == pytest.approx(1.0 if schedule == "constant" else 0.1)
    assert all(a >= b for a, b in pairwise(rates[9:]))
    if schedule == "trapezoid":
        assert rates[79] == 1.0 > rates[80]


def test_the_command_line_trains_and_prints_progress(tmp_path: Path):
    path = tmp_path / "trial.yaml"
    path.write_text(yaml.safe_dump(a_config()))
    command = [sys.executable, "-m", "workloads.train", str(path), "--set", "training.steps=4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "step 2/4" in done.stdout
    assert "step 4/4" in done.stdout
    assert "val_bpb" in done.stdout


def test_the_command_line_says_what_is_wrong_with_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from workloads.__main__ import main

    path = tmp_path / "trial.yaml"
    path.write_text("training: {lr: -1}")
    assert main([str(path)]) == 2
    assert "training.lr" in capsys.readouterr().err
