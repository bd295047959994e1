"""What training a model takes of memory: weights, gradients, moments, and what forward keeps for backward."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from workloads import seeding
from workloads.build import task_of
from workloads.config import TrialConfig
from workloads.shell import SequenceModel, count_parameters

BYTES_A_NUMBER = 4
MOMENTS = {"adamw": 2, "sophia": 2, "grams": 2}
"""Numbers that the optimiser keeps for each parameter."""


def training_bytes(config: TrialConfig | Mapping[str, Any], workers: int = 1) -> int:
    """Bytes that one worker needs at the height of a step, the framework's own left out.

    Parameters, gradients and moments in float32; what autograd keeps for the backward pass, counted on one sequence
    and taken to be in proportion to the sequences of a part of the batch.

    Raises:
        ConfigError: the configuration is wrong.
    """
    trial = TrialConfig.parse(config)
    task = task_of(trial)
    length = task.signature(trial.training.sequence_length).sequence_length
    seeding.seed_everything(trial.seed, "init")
    model = SequenceModel(trial.model, task.signature(trial.training.sequence_length))
    copies = 2 + MOMENTS[trial.training.optimizer] + (trial.training.ema_decay is not None)
    batch = task.batch(1, trial.seed, 1, length)
    sequences = math.ceil(trial.training.batch_size / (workers * trial.training.accumulate))
    return copies * BYTES_A_NUMBER * count_parameters(model) + sequences * kept_bytes(model, batch.inputs)


def kept_bytes(model: nn.Module, inputs: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass; parameters and views of one storage count once."""
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = model(inputs)
        del output
    return sum(found.values())
