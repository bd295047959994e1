"""A run that is killed at any step and resumed is the undisturbed run, bit for bit: metrics, weights, optimiser."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from workloads import build_task, list_tasks, train
from workloads.checkpoint import latest, load

# A real text, and short, so that evaluations take no time
CORPUS = str(Path(__file__).parents[2] / "LICENSE")
STEPS = 6
TIMING = {"tokens_per_s", "loader_tokens_per_s"}
MOE = {"name": "moe", "num_experts": 4, "expert_hidden": 8, "router": {"name": "topk", "k": 2}}
MODELS = {
    "gru": {"mixer": "gru"},
    "lstm": {"mixer": "lstm"},
    "rg_lru": {"mixer": "rg_lru"},
    "moe": {"mixer": "gru", "feedforward": MOE},
    "noisy_moe": {"mixer": "rg_lru", "feedforward": MOE | {"router": {"name": "noisy_topk", "k": 2}}},
}


def bytes_trial(model: dict[str, Any], **training: Any) -> dict[str, Any]:
    dense = {"name": "dense", "hidden": 16}
    return {
        "task": {"name": "bytes_lm", "corpus": CORPUS},
        "model": {"d_model": 16, "n_layers": 2, "feedforward": dense} | model,
        "training": {"steps": STEPS, "batch_size": 4, "sequence_length": 256, "eval_every": 3, "figures": False}
        | training,
        "seed": 5,
    }


def same(a: Any, b: Any) -> bool:
    """Equality of nested checkpoint contents, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a if key not in TIMING)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def killed_after(directory: Path, step: int, at: Path) -> Path:
    """What a kill right after `step` leaves: the checkpoints up to it."""
    at.mkdir()
    for path in directory.glob("step-*"):
        if int(path.name.split("-")[1]) <= step:
            shutil.copy(path, at)
    return at


def assert_resumes_exactly(config: dict[str, Any], tmp_path: Path, kills: list[int]) -> None:
    config["training"] |= {"checkpoint_every": 1, "keep_checkpoints": 1000, "figures": False}
    whole = tmp_path / "whole"
    rows = list(train(config, checkpoint_dir=whole))
    end = load(latest(whole))  # type: ignore[arg-type]
    for step in kills:
        directory = killed_after(whole, step, tmp_path / f"killed-{step}")
        resumed = list(train(config, checkpoint_dir=directory, resume_from=directory))
        assert same(resumed, [row for row in rows if row["step"] > step])
        assert same(load(latest(directory)), end)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODELS)
def test_resume_is_exact_for_models(name: str, tmp_path: Path):
    kills = random.Random(name).sample(range(STEPS), 2)
    assert_resumes_exactly(bytes_trial(MODELS[name]), tmp_path, kills)


@pytest.mark.parametrize(
    "option",
    [{"accumulate": 2}, {"precision": "bf16"}, {"ema_decay": 0.9}, {"optimizer": "sophia"}, {"optimizer": "grams"}],
    ids=str,
)
def test_resume_is_exact_for_ways_of_training(option: dict[str, Any], tmp_path: Path):
    kills = random.Random(str(option)).sample(range(1, STEPS), 1)
    assert_resumes_exactly(bytes_trial(MODELS["gru"], **option), tmp_path, kills)


@pytest.mark.parametrize("name", list_tasks())
def test_resume_is_exact_for_every_task(name: str, tmp_path: Path):
    config = build_task(name).smoke()
    config["training"] = config.get("training", {}) | {"steps": 3, "eval_every": 3, "warmup_steps": 1}
    assert_resumes_exactly(config, tmp_path, [random.Random(name).randrange(3)])


def test_a_process_that_is_killed_goes_on_as_if_nothing_had_happened(tmp_path: Path):
    config = bytes_trial(MODELS["moe"], steps=60, eval_every=30, checkpoint_every=1, sequence_length=64)
    path, directory = tmp_path / "trial.yaml", tmp_path / "checkpoints"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "workloads.train", str(path), "--checkpoint-dir", str(directory)]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len(list(directory.glob("step-*"))) < 2:
            assert victim.poll() is None, "the trial ended by itself"
            time.sleep(0.01)
    finally:
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
    found = latest(directory)
    assert found is not None
    reached = load(found)["step"]
    resumed = list(train(config, checkpoint_dir=directory, resume_from=directory))
    assert same(resumed, [row for row in train(config) if row["step"] > reached])
