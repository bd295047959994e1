"""Evaluation: deterministic, leaves the model as it was, also at other lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from workloads import build_model, build_task, seeding
from workloads.build import task_of
from workloads.config import TrialConfig
from workloads.evaluate import evaluate, extrapolate

CORPUS = str(Path(__file__).parents[2] / "LICENSE")


def a_trial(task: Any = None, **training: Any) -> TrialConfig:
    task = task or {"name": "bytes_lm", "corpus": CORPUS}
    model = {"d_model": 16, "n_layers": 1, "feedforward": {"name": "moe", "num_experts": 4}}
    return TrialConfig.parse({"task": task, "model": model, "training": {"sequence_length": 32} | training})


def test_evaluation_is_deterministic_and_leaves_mode_and_generators_alone():
    trial = a_trial()
    seeding.seed_everything(0)
    model, task = build_model(trial), task_of(trial)
    state = torch.get_rng_state()
    first = evaluate(model, task, trial.training)
    assert evaluate(model, task, trial.training) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert first["val_bpb"] == pytest.approx(8.0, rel=0.05), "an untrained model is about uniform over bytes"


def test_the_score_does_not_depend_on_the_batch_size():
    trial = a_trial()
    seeding.seed_everything(0)
    model, task = build_model(trial), task_of(trial)
    scores = [evaluate(model, task, a_trial(batch_size=size).training)["val_bpb"] for size in (1, 7, 64)]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-5)


def test_other_lengths_are_measured_where_the_task_leaves_them_open():
    trial = a_trial(extrapolate=[2, 4])
    assert set(extrapolate(build_model(trial), task_of(trial), trial.training)) == {"length/64", "length/128"}


def test_a_length_that_the_data_do_not_allow_is_left_out():
    trial = a_trial(extrapolate=[2, 1000])
    assert set(extrapolate(build_model(trial), task_of(trial), trial.training)) == {"length/64"}


def test_a_task_of_fixed_length_has_no_other_lengths():
    trial = a_trial(build_task("copying").smoke()["task"])
    assert extrapolate(build_model(trial), task_of(trial), trial.training) == {}
