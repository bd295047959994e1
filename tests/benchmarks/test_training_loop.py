"""What the training loop costs beside a bare PyTorch loop over the same model and batches. Prints its figures.

The figures are asserted with ORCH_BENCHMARK=1 on a quiet machine; elsewhere a busy neighbour would decide the test.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from workloads import seeding
from workloads.config import TrialConfig
from workloads.optim import build_optimizer
from workloads.shell import SequenceModel
from workloads.train import Trainer

ASSERTED = os.environ.get("ORCH_BENCHMARK") == "1"
STEPS = 2
ROUNDS = 30 if ASSERTED else 4

MODELS: dict[str, dict[str, Any]] = {
    "gru": {"mixer": "gru"},
    "rg_lru": {"mixer": "rg_lru"},
    "moe": {"mixer": "rg_lru", "feedforward": {"name": "moe", "num_experts": 8}},
}


def a_trial(model: dict[str, Any]) -> TrialConfig:
    return TrialConfig.parse(
        {
            "model": {"d_model": 128, "n_layers": 2} | model,
            "training": {"steps": 10_000, "batch_size": 16, "sequence_length": 128, "lr": 1e-3},
        }
    )


def bare_loop(trial: TrialConfig, trainer: Trainer) -> Callable[[], None]:
    """One step of the loop that one would write by hand, on one ready batch."""
    seeding.seed_everything(trial.seed, "init")
    model = SequenceModel(trial.model, trainer.signature)
    optimizer = build_optimizer(model, trial.training)
    batch = trainer.task.batch(1, 0, trial.training.batch_size, trial.training.sequence_length)

    def step() -> None:
        output = model(batch.inputs)
        loss = F.cross_entropy(output.logits.flatten(0, 1), batch.targets.flatten())
        loss = loss + sum(output.losses.values(), torch.zeros(()))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def tokens_a_step(trial: TrialConfig) -> int:
    return trial.training.batch_size * trial.training.sequence_length


def seconds_a_step(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - started) / STEPS


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_loop_keeps_up_with_a_bare_one(name: str, capsys: pytest.CaptureFixture[str]):
    trial = a_trial(MODELS[name])
    trainer = Trainer(trial)
    bare = bare_loop(trial, trainer)
    trainer.train_step()
    bare()
    # In turns and in short rounds, the best of each: a busy neighbour slows rounds down, and none up
    pairs = [(seconds_a_step(bare), seconds_a_step(trainer.train_step)) for _ in range(ROUNDS)]
    theirs, ours = (tokens_a_step(trial) / min(column) for column in zip(*pairs, strict=True))
    ratio = ours / theirs
    with capsys.disabled():
        print(f"\n{name}: bare {theirs:,.0f} tokens/s, training loop {ours:,.0f} tokens/s, ratio {ratio:.1%}")
    assert trainer.step == 1 + ROUNDS * STEPS
    if ASSERTED:
        assert ratio >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_health_columns_cost_little(name: str, capsys: pytest.CaptureFixture[str]):
    trial = a_trial(MODELS[name])
    trainer = Trainer(trial)
    trainer.train_step()
    trainer.probe.report(trainer.model, 1)
    step = min(seconds_a_step(trainer.train_step) for _ in range(ROUNDS))
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        trainer.probe.report(trainer.model, 1)
        times.append(time.perf_counter() - started)
    share = min(times) / (step * trial.training.eval_every)
    with capsys.disabled():
        print(f"\n{name}: a look at the probe takes {min(times) / step:.2f} steps, {share:.2%} at every 50 steps")
    assert len(trainer.probe.history) == 1 + ROUNDS
    if ASSERTED:
        assert share < 0.02


@pytest.mark.slow
def test_the_loader_alone_is_far_ahead_of_the_model(capsys: pytest.CaptureFixture[str]):
    trial = a_trial(MODELS["gru"])
    trainer = Trainer(trial)
    trainer.train_step()
    model = min(seconds_a_step(trainer.train_step) for _ in range(2))
    steps = iter(range(10_000))
    loader = min(seconds_a_step(lambda: _draw(trainer, next(steps))) for _ in range(ROUNDS))
    tokens = tokens_a_step(trial)
    with capsys.disabled():
        print(
            f"\nbytes_lm: loader alone {tokens / loader:,.0f} tokens/s, with the model {tokens / model:,.0f} tokens/s"
        )
    if ASSERTED:
        assert loader < 0.05 * model


def _draw(trainer: Trainer, step: int) -> None:
    training = trainer.trial.training
    trainer.task.batch(step, 0, training.batch_size, training.sequence_length)
