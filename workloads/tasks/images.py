"""Images read as sequences. Shapes: B images, T steps, W values a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from workloads import seeding
from workloads.datasets.images import read_images
from workloads.tasks.base import Batch, Predict, Signature, Task
from workloads.tasks.finite import fingerprint, rows_of_step
from workloads.tasks.generated import accuracy
from workloads.tasks.options.images import SeqDigits as Options


class SeqDigits(Task):
    """Classification of images from their sequence of pixels or rows; the rule stands with the options."""

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        images = read_images(options.images)
        flat = images.pixels.reshape(len(images.pixels), -1)
        if options.permuted:
            random = seeding.numpy_generator(options.permutation_seed, "permutation")
            flat = flat[:, random.permutation(flat.shape[1])]
        self.width = images.pixels.shape[2] if options.by == "row" else 1
        seen = flat[images.train].astype(np.float32)
        scaled = (flat.astype(np.float32) - seen.mean()) / seen.std()
        self.inputs = torch.from_numpy(scaled.reshape(len(flat), -1, self.width))
        self.labels = torch.from_numpy(images.labels)
        self.train, self.held_out, self.test = map(torch.from_numpy, (images.train, images.validation, images.test))
        self.fingerprint = fingerprint(options, flat, images.labels)

    def signature(self, sequence_length: int) -> Signature:
        """W reals in, ten classes out, read once a sequence; the length is the task's own."""
        return Signature(
            input_width=self.width, outputs=10, readout=self.options.readout, sequence_length=self.inputs.shape[1]
        )

    def batch(self, step: int, seed: int, batch_size: int, sequence_length: int) -> Batch:
        """Images [B, T, W] float32 and classes [B]."""
        rows = self.train[torch.from_numpy(rows_of_step(seed, step, batch_size, len(self.train)))]
        return Batch(self.inputs[rows], self.labels[rows])

    def validation(self, batch_size: int, sequence_length: int) -> Iterator[Batch]:
        """The validation split."""
        return self._split(self.held_out, batch_size)

    def evaluate(self, model: Predict, batch_size: int, sequence_length: int) -> dict[str, float]:
        """The defaults, and `test_accuracy`."""
        metrics = super().evaluate(model, batch_size, sequence_length)
        metrics["test_accuracy"], _ = accuracy(model, self._split(self.test, batch_size))
        return metrics

    def baseline(self, sequence_length: int) -> dict[str, float]:
        """The most frequent class of the training split."""
        most = self.labels[self.train].bincount(minlength=10).argmax()
        return {"majority": float((self.labels[self.held_out] == most).float().mean())}

    def smoke(self) -> dict[str, Any]:
        """A GRU over the rows of 8×8 digits."""
        task = {"name": self.options.name, "images": self.options.images, "by": "row"}
        return {
            "task": task,
            "model": {"d_model": 48, "n_layers": 1, "mixer": "gru"},
            "training": {"steps": 100, "batch_size": 64, "lr": 1e-2, "weight_decay": 0.0, "eval_every": 100},
        }

    def _split(self, rows: torch.Tensor, batch_size: int) -> Iterator[Batch]:
        for part in rows.split(batch_size):
            yield Batch(self.inputs[part], self.labels[part])
