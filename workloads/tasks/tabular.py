"""Rows of tables. Shapes: B rows, F features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from workloads.datasets.tables import read_table
from workloads.tasks.base import Batch, Predict, Signature, Task
from workloads.tasks.finite import fingerprint, fitted_once, rows_of_step
from workloads.tasks.linear import ridge, softmax_regression
from workloads.tasks.options.tabular import Tabular as Options

RIDGE_PENALTY = 1.0


class Tabular(Task):
    """Classification or regression of rows; the rule stands with the options."""

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        table = read_table(options.data)
        self.classes = table.classes
        self.fingerprint = fingerprint(options, table.features, table.target)
        self.parts = {"train": table.train, "val": table.validation, "test": table.test}
        self.features = scaled(table.features, table.train).astype(np.float32)
        self.unit = 1.0 if self.classes else float(table.target[table.train].std())
        target = table.target if self.classes else scaled(table.target[:, None], table.train).astype(np.float32)
        self.target = target

    def signature(self, sequence_length: int) -> Signature:
        """F reals in, the classes or one value out, one step long."""
        width = self.features.shape[1]
        return Signature(input_width=width, outputs=self.classes or 1, readout="last", sequence_length=1)

    def batch(self, step: int, seed: int, batch_size: int, sequence_length: int) -> Batch:
        """Rows [B, 1, F] float32; classes [B] int64 or values [B, 1] float32."""
        train = self.parts["train"]
        return self._rows(train[rows_of_step(seed, step, batch_size, len(train))])

    def validation(self, batch_size: int, sequence_length: int) -> Iterator[Batch]:
        """The validation split."""
        return self._split("val", batch_size)

    def evaluate(self, model: Predict, batch_size: int, sequence_length: int) -> dict[str, float]:
        """Loss, and accuracy or root mean squared error, on validation and test."""
        metrics: dict[str, float] = {}
        for part in ("val", "test"):
            outputs = torch.cat([model(batch.inputs).cpu() for batch in self._split(part, batch_size)])
            targets = torch.from_numpy(self.target[self.parts[part]])
            metrics[f"{part}_loss"] = float(self.loss(outputs, targets))
            if self.classes:
                metrics[f"{part}_accuracy"] = float((outputs.argmax(-1) == targets).float().mean())
            else:
                metrics[f"{part}_rmse"] = metrics[f"{part}_loss"] ** 0.5 * self.unit
        return metrics

    @fitted_once
    def baseline(self, sequence_length: int) -> dict[str, float]:
        """Validation loss of what ignores the features, and of the linear model."""
        train, held_out = self.parts["train"], self.parts["val"]
        x, y = self.features[train], self.target[train]
        if not self.classes:
            predict = ridge(x.astype(np.float64), y.astype(np.float64), RIDGE_PENALTY)
            errors = {
                "prior": self.target[held_out],
                "linear": predict(self.features[held_out]) - self.target[held_out],
            }
            return {name: float(np.square(error).mean()) for name, error in errors.items()}
        targets = torch.from_numpy(self.target[held_out])
        share = (np.bincount(y, minlength=self.classes) + 1) / (len(y) + self.classes)
        prior = torch.from_numpy(np.log(share)).float().expand(len(targets), self.classes)
        linear = softmax_regression(x, y, self.classes)(self.features[held_out])
        return {"prior": float(F.cross_entropy(prior, targets)), "linear": float(F.cross_entropy(linear, targets))}

    def smoke(self) -> dict[str, Any]:
        """A small MLP; the mixer sees one step and adds little."""
        return {
            "task": {"name": self.options.name, "data": self.options.data},
            "model": {"d_model": 32, "n_layers": 1, "mixer": "gru"},
            "training": {"steps": 60, "batch_size": 64, "lr": 3e-3, "eval_every": 60},
        }

    def _split(self, part: str, batch_size: int) -> Iterator[Batch]:
        rows = self.parts[part]
        for i in range(0, len(rows), batch_size):
            yield self._rows(rows[i : i + batch_size])

    def _rows(self, rows: np.ndarray) -> Batch:
        return Batch(torch.from_numpy(self.features[rows, None]), torch.from_numpy(self.target[rows]))


def scaled(columns: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Columns by the mean and deviation of their training rows; a constant column becomes zeros."""
    deviation = columns[train].std(0)
    return (columns - columns[train].mean(0)) / np.where(deviation > 0, deviation, 1)
