"""Tasks that ask how long something is remembered. Shapes: N examples, T time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from workloads.errors import ConfigError, Problem
from workloads.tasks.base import IGNORE, Predict, Signature
from workloads.tasks.generated import Examples, Generated, accuracy, distinct
from workloads.tasks.options.memory import Adding as AddingOptions
from workloads.tasks.options.memory import Copying as CopyingOptions
from workloads.tasks.options.memory import SelectiveCopying as SelectiveOptions

SYMBOLS = 8
CALL = 9


class Copying(Generated):
    """Copying memory; the rule stands with the options."""

    options: CopyingOptions

    @property
    def length(self) -> int:
        """Steps of every sequence: delay + 2·symbols."""
        return int(self.options.delay + 2 * self.options.symbols)

    def signature(self, sequence_length: int) -> Signature:
        """Ten ids in, ten classes at each position out; the length is the task's own."""
        return Signature(vocab_size=CALL + 1, outputs=CALL + 1, sequence_length=self.length)

    def draw(self, random: np.random.Generator, count: int, length: int) -> Examples:
        """Inputs and targets [N, delay + 2·symbols] int64."""
        n = self.options.symbols
        symbols = random.integers(1, SYMBOLS + 1, (count, n))
        inputs = np.zeros((count, self.length), np.int64)
        inputs[:, :n], inputs[:, -n - 1 :] = symbols, CALL
        targets = np.zeros((count, self.length), np.int64)
        targets[:, -n:] = symbols
        return inputs, targets

    def evaluate(self, model: Predict, batch_size: int, sequence_length: int) -> dict[str, float]:
        """The defaults over all positions, and `val_recall`: the share of the symbols that are right."""
        metrics = super().evaluate(model, batch_size, sequence_length)
        n, right, total = self.options.symbols, 0, 0
        for batch in self.validation(batch_size, sequence_length):
            guess = model(batch.inputs)[:, -n:].argmax(-1)
            right += int((guess == batch.targets[:, -n:].to(guess.device)).sum())
            total += guess.numel()
        return metrics | {"val_recall": right / total}

    def baseline(self, sequence_length: int) -> dict[str, float]:
        """Nats a step without memory."""
        return {"blind": self.options.symbols * math.log(SYMBOLS) / self.length}

    def smoke(self) -> dict[str, Any]:
        """A GRU that carries three symbols over a few steps."""
        return {
            "task": {"name": self.options.name, "delay": 5, "symbols": 3, "validation_examples": 32},
            "model": {"d_model": 48, "n_layers": 1, "mixer": "gru"},
            "training": {"steps": 250, "batch_size": 64, "lr": 1e-2, "weight_decay": 0.0, "eval_every": 250},
        }


class SelectiveCopying(Generated):
    """Selective copying; the rule stands with the options."""

    options: SelectiveOptions

    @property
    def probe_length(self) -> int:  # type: ignore[override]
        """A sequence as short as the symbols allow."""
        return 2 * int(self.options.symbols) + 8

    def signature(self, sequence_length: int) -> Signature:
        """V ids in, one of V classes at each position out."""
        shortest = 2 * self.options.symbols + 1
        if sequence_length < shortest:
            problem = f"{sequence_length} tokens cannot hold {self.options.symbols} symbols twice and the copy mark; "
            hint = "Lengthen it, or lower task.symbols."
            path = ("training", "sequence_length")
            raise ConfigError([Problem(path, f"{problem}expected at least {shortest}.", hint)])
        vocab = self.options.vocab_size
        return Signature(vocab_size=vocab, outputs=vocab, sequence_length=sequence_length)

    def draw(self, random: np.random.Generator, count: int, length: int) -> Examples:
        """Inputs and targets [N, T] int64."""
        n, blank, mark = self.options.symbols, self.options.vocab_size - 2, self.options.vocab_size - 1
        symbols = random.integers(0, blank, (count, n))
        stretch = length - n - 1
        places = np.sort(random.random((count, stretch)).argpartition(n - 1, axis=1)[:, :n], axis=1)
        inputs = np.full((count, length), blank, np.int64)
        np.put_along_axis(inputs, places, symbols, axis=1)
        inputs[:, stretch] = mark
        targets = np.full((count, length), IGNORE, np.int64)
        targets[:, -n:] = symbols
        return inputs, targets

    def evaluate(self, model: Predict, batch_size: int, sequence_length: int) -> dict[str, float]:
        """The defaults, and `val_sequence_accuracy`: all symbols of a sequence right."""
        metrics = super().evaluate(model, batch_size, sequence_length)
        _, whole = accuracy(model, self.validation(batch_size, sequence_length))
        return metrics | {"val_sequence_accuracy": whole}

    def baseline(self, sequence_length: int) -> dict[str, float]:
        """A uniform symbol."""
        return {"chance": 1 / (self.options.vocab_size - 2)}

    def smoke(self) -> dict[str, Any]:
        """A GRU on two symbols among blanks."""
        return {
            "task": {"name": self.options.name, "vocab_size": 8, "symbols": 2, "validation_examples": 256},
            "model": {"d_model": 48, "n_layers": 1, "mixer": "gru"},
            "training": {
                "steps": 250,
                "batch_size": 64,
                "sequence_length": 10,
                "lr": 1e-2,
                "weight_decay": 0.0,
                "eval_every": 250,
            },
        }


class Adding(Generated):
    """The adding problem; the rule stands with the options."""

    options: AddingOptions

    def signature(self, sequence_length: int) -> Signature:
        """Two real channels in, the sum out, read at the last position."""
        if sequence_length < 2:
            problem = f"{sequence_length} steps cannot hold two marks; expected at least 2."
            raise ConfigError([Problem(("training", "sequence_length"), problem)])
        return Signature(input_width=2, outputs=1, readout="last", sequence_length=sequence_length)

    def draw(self, random: np.random.Generator, count: int, length: int) -> Examples:
        """Inputs [N, T, 2] and targets [N, 1], float32."""
        u = random.random((count, length), np.float32)
        if self.options.marks == "halves":
            half = length // 2
            marks = np.stack([random.integers(0, half, count), random.integers(half, length, count)], axis=1)
        else:
            marks = distinct(random, count, 2, length)
        mask = np.zeros((count, length), np.float32)
        np.put_along_axis(mask, marks, 1.0, axis=1)
        return np.stack([u, mask], axis=2), np.take_along_axis(u, marks, axis=1).sum(1, keepdims=True)

    def baseline(self, sequence_length: int) -> dict[str, float]:
        """Predicting 1: the variance of two uniform numbers' sum."""
        return {"mean": 1 / 6}

    def smoke(self) -> dict[str, Any]:
        """A GRU over ten steps."""
        return {
            "task": {"name": self.options.name, "validation_examples": 256},
            "model": {"d_model": 32, "n_layers": 1, "mixer": "gru"},
            "training": {
                "steps": 250,
                "batch_size": 64,
                "sequence_length": 10,
                "lr": 1e-2,
                "weight_decay": 0.0,
                "eval_every": 250,
            },
        }
