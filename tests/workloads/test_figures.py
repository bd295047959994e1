"""Figures of a finished trial."""

from __future__ import annotations

from pathlib import Path

import pytest

from workloads import figures, train
from workloads.errors import CheckpointError, TrialDiverged

PNG = b"\x89PNG\r\n"
CORPUS = str(Path(__file__).parents[2] / "LICENSE")


def test_a_trial_draws_the_figures_of_the_parts_that_it_has(tmp_path: Path):
    config = {
        "task": {"name": "bytes_lm", "corpus": CORPUS},
        "model": {"d_model": 16, "n_layers": 2, "mixer": "gru", "feedforward": {"name": "moe", "num_experts": 4}},
        "training": {"steps": 4, "batch_size": 4, "sequence_length": 32, "eval_every": 2},
    }
    list(train(config, checkpoint_dir=tmp_path))
    drawn = sorted((tmp_path / "figures").iterdir())
    names = [path.name for path in drawn]
    assert names == ["gate_histogram.png", "learning_curve.png", "load_heat_map.png", "memory_profile.png"]
    assert all(path.read_bytes().startswith(PNG) and path.stat().st_size > 5000 for path in drawn)


def test_a_model_without_routing_and_gates_has_the_other_figures(tmp_path: Path):
    config = {
        "task": {"name": "bytes_lm", "corpus": CORPUS},
        "model": {"d_model": 16, "n_layers": 1, "mixer": "attention"},
        "training": {"steps": 1, "batch_size": 4, "sequence_length": 32, "figures": False},
    }
    list(train(config, checkpoint_dir=tmp_path))
    assert not (tmp_path / "figures").exists()
    assert [path.name for path in figures.draw_again(tmp_path)] == ["learning_curve.png", "memory_profile.png"]


def test_a_trial_that_is_stopped_or_diverges_has_figures_too(tmp_path: Path):
    config = {
        "task": {"name": "bytes_lm", "corpus": CORPUS},
        "model": {"d_model": 16, "n_layers": 1, "mixer": "attention"},
        "training": {"steps": 9, "batch_size": 4, "sequence_length": 32, "eval_every": 1, "warmup_steps": 0},
    }
    rows = train(config, checkpoint_dir=tmp_path / "stopped")
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert (tmp_path / "stopped/figures/learning_curve.png").exists()
    config["training"] |= {"lr": 1e6, "grad_clip": 0, "divergence_factor": 1.5}  # type: ignore[operator]
    with pytest.raises(TrialDiverged):
        list(train(config, checkpoint_dir=tmp_path / "diverged"))
    assert (tmp_path / "diverged/figures/learning_curve.png").exists()


def test_drawing_before_anything_was_saved_says_so(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        figures.draw_again(tmp_path)
