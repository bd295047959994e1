"""A trained model, brought back from its checkpoint with the task that it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from workloads import checkpoint
from workloads.build import build_model, task_of
from workloads.config import TrialConfig
from workloads.errors import CheckpointError
from workloads.optim import train_only
from workloads.optim.ema import WeightAverage
from workloads.shell import SequenceModel
from workloads.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Trained:
    """What a trial left behind.

    path: the checkpoint.
    step: optimiser steps done.
    model: in evaluation mode, on the CPU; with the averaged weights where the trial evaluated with these.
    """

    path: Path
    step: int
    trial: TrialConfig
    model: SequenceModel
    task: Task


def trained(path: str | Path) -> Trained:
    """Args: path, a checkpoint, or a checkpoint directory, of which the newest whole one is taken.

    Raises:
        CheckpointError: there is none, it is damaged, or of data that are not those of this machine.
    """
    found = checkpoint.latest(path) if Path(path).is_dir() else Path(path)
    if found is None:
        raise CheckpointError(f"no whole checkpoint in {path}. Give the checkpoint_dir of a trial that has saved one.")
    state = checkpoint.load(found)
    trial = TrialConfig.parse(state["config"])
    task = task_of(trial)
    if state["fingerprint"] != task.fingerprint:
        raise CheckpointError(
            f"checkpoint {found} was trained on data {state['fingerprint'][:16]}…, here are "
            f"{task.fingerprint[:16]}…. Bring the same data."
        )
    model = build_model(trial)
    model.load_state_dict(state["model"])
    if state["average"] is not None:
        train_only(model, trial.training.trainable)
        average = WeightAverage(model, trial.training.ema_decay or 0.0)
        average.load(state["average"])
        with torch.no_grad():
            torch._foreach_copy_(average.parameters, average.averages)
    return Trained(found, state["step"], trial, model.eval(), task)
