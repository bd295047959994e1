"""A model's metrics on a task's validation data."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from workloads.config import TrainingConfig
from workloads.errors import WorkloadError
from workloads.shell import SequenceModel, module_device
from workloads.tasks.base import Predict, Task


def evaluate(model: nn.Module, task: Task, training: TrainingConfig) -> dict[str, float]:
    """The task's metrics, deterministic: evaluation mode, no gradient, float32 outputs; the mode is put back."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return task.evaluate(predictor(model, training.precision), training.batch_size, training.sequence_length)
    finally:
        model.train(was_training)


def extrapolate(model: SequenceModel, task: Task, training: TrainingConfig) -> dict[str, float]:
    """The primary metric at multiples of the training length, as "length/LENGTH"; {} where the length is the task's.

    A length that the task refuses, for want of data say, is left out: the trial itself is not wrong.
    """
    columns = {}
    trained = task.signature(training.sequence_length).sequence_length
    for factor in training.extrapolate:
        length = factor * trained
        try:
            if task.signature(length).sequence_length != length:
                continue
        except WorkloadError:
            continue
        longer = replace(training, sequence_length=length, batch_size=max(1, training.batch_size // factor))
        columns[f"length/{length}"] = evaluate(model, task, longer)[task.metric]
    return columns


def predictor(model: nn.Module, precision: str = "float32") -> Predict:
    """The model as tasks call it: inputs on any device -> outputs in float32 on the model's device.

    Args: model, a `SequenceModel` or one that answers as it does.
    """
    device = module_device(model)

    def predict(inputs: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits: Tensor = model(inputs.to(device)).logits
            return logits.float()

    return predict
