"""Classical algorithms as sequences. Shapes: B samples, n nodes, T = 2n steps, W features a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from workloads.datasets.algorithms import MOST_NODES, Samples, read_samples
from workloads.tasks.base import IGNORE, Batch, Predict, Signature, Task
from workloads.tasks.finite import fingerprint, rows_of_step
from workloads.tasks.generated import accuracy, batches
from workloads.tasks.options.algorithms import Clrs as Options


class Clrs(Task):
    """The answers of one algorithm; the rule stands with the options."""

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        samples = read_samples(options.algorithm)
        self.parts = {split: as_sequences(part) for split, part in samples.items()}
        train = samples["train"].answer
        self.classes = 2 if train.shape[1] > 1 and train.max() < 2 else MOST_NODES
        self.fingerprint = fingerprint(options, *(array for part in self.parts.values() for array in part))

    def signature(self, sequence_length: int) -> Signature:
        """W reals in, two classes or one a node out, at each step; the length is the task's own."""
        inputs = self.parts["train"][0]
        return Signature(input_width=inputs.shape[2], outputs=self.classes, sequence_length=inputs.shape[1])

    def batch(self, step: int, seed: int, batch_size: int, sequence_length: int) -> Batch:
        """Samples [B, 2n, W] float32 and answers [B, 2n] int64."""
        inputs, answers = self.parts["train"]
        rows = rows_of_step(seed, step, batch_size, len(inputs))
        return Batch(torch.from_numpy(inputs[rows]), torch.from_numpy(answers[rows]))

    def validation(self, batch_size: int, sequence_length: int) -> Iterator[Batch]:
        """The validation split."""
        return batches(self.parts["val"], batch_size)

    def evaluate(self, model: Predict, batch_size: int, sequence_length: int) -> dict[str, float]:
        """The defaults, and `test_accuracy` on larger samples."""
        metrics = super().evaluate(model, batch_size, sequence_length)
        metrics["test_accuracy"], _ = accuracy(model, batches(self.parts["test"], batch_size))
        return metrics

    def baseline(self, sequence_length: int) -> dict[str, float]:
        """The most frequent answer of the training split."""
        seen, held_out = (self.parts[split][1][self.parts[split][1] != IGNORE] for split in ("train", "val"))
        return {"majority": float((held_out == np.bincount(seen).argmax()).mean())}

    def smoke(self) -> dict[str, Any]:
        """A small GRU."""
        return {
            "task": {"name": self.options.name, "algorithm": self.options.algorithm},
            "model": {"d_model": 64, "n_layers": 1, "mixer": "gru"},
            "training": {"steps": 150, "batch_size": 64, "lr": 1e-2, "weight_decay": 0.0, "eval_every": 150},
        }


def as_sequences(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [N, 2n, W] float32 and answers [N, 2n] int64, IGNORE where nothing is asked."""
    count, n, c, _ = samples.edges.shape
    rows = np.zeros((count, n, c, MOST_NODES), np.float32)
    rows[..., :n] = samples.edges
    given = np.concatenate([samples.nodes, rows.reshape(count, n, c * MOST_NODES)], axis=2)
    flags = np.repeat(np.array([0, 1], np.float32), n)[None, :, None]
    inputs = np.concatenate([np.tile(given, (1, 2, 1)), np.broadcast_to(flags, (count, 2 * n, 1))], axis=2)
    answers = np.full((count, 2 * n), IGNORE, np.int64)
    answers[:, 2 * n - samples.answer.shape[1] :] = samples.answer
    return inputs, answers
