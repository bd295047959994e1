"""State tracking: parity and the word problems of groups. Shapes: N examples, T time, G elements of a group."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import numpy as np

from workloads import seeding
from workloads.tasks.base import IGNORE, Batch, Predict, Signature
from workloads.tasks.generated import VALIDATION_SEED, Examples, Generated, accuracy, batches
from workloads.tasks.options.state_tracking import A5Word
from workloads.tasks.options.state_tracking import Parity as ParityOptions

END = 0
QUARTERS = 4


class Parity(Generated):
    """Parity with lengths of its own in training and validation; the rule stands with the options."""

    options: ParityOptions

    def signature(self, sequence_length: int) -> Signature:
        """Three ids in, three classes at each position out; the length is the task's own."""
        return Signature(vocab_size=3, outputs=3, sequence_length=self.options.max_length + 1)

    def draw(self, random: np.random.Generator, count: int, length: int) -> Examples:
        """Inputs and targets [N, max_length + 1] int64, of training's lengths."""
        lengths = random.integers(self.options.min_length, self.options.max_length + 1, count)
        return bit_strings(random, lengths, self.options.max_length + 1, each=self.options.answer == "each")

    def validation(self, batch_size: int, sequence_length: int) -> Iterator[Batch]:
        """Strings longer than any of training's, which therefore cannot be among them."""
        return batches(self._longer(), batch_size)

    def evaluate(self, model: Predict, batch_size: int, sequence_length: int) -> dict[str, float]:
        """The defaults over the longer strings, and accuracies by length."""
        metrics = super().evaluate(model, batch_size, sequence_length)
        inputs, targets = self._longer()
        for i, part in enumerate(np.array_split(np.arange(len(inputs)), QUARTERS), start=1):
            if len(part):
                metrics[f"val_accuracy_q{i}"], _ = accuracy(model, batches((inputs[part], targets[part]), batch_size))
        trained = self.fixed("validation", self.options.validation_examples, 0)
        final = np.where(trained[0] == END, trained[1], IGNORE)
        metrics["val_accuracy_trained"], _ = accuracy(model, batches((trained[0], final), batch_size))
        return metrics

    def baseline(self, sequence_length: int) -> dict[str, float]:
        """A coin."""
        return {"chance": 0.5}

    def smoke(self) -> dict[str, Any]:
        """An LSTM that is right far beyond the trained lengths."""
        task = {"name": self.options.name, "min_length": 1, "max_length": 10, "test_length": 20, "answer": "each"}
        return {
            "task": task | {"validation_examples": 128},
            "model": {"d_model": 32, "n_layers": 1, "mixer": "lstm"},
            "training": {"steps": 200, "batch_size": 64, "lr": 1e-2, "weight_decay": 0.0, "eval_every": 200},
        }

    def _longer(self) -> Examples:
        count = self.options.validation_examples
        lengths = np.linspace(self.options.max_length + 1, self.options.test_length, count).round().astype(np.int64)
        return bit_strings(
            seeding.numpy_generator(VALIDATION_SEED, "longer"), lengths, self.options.test_length + 1, each=False
        )


def bit_strings(random: np.random.Generator, lengths: np.ndarray, width: int, *, each: bool) -> Examples:
    """Uniform bit strings of these lengths with an end mark: inputs and targets [N, width] int64.

    Inputs: bit + 1, then END to the right. Targets: parity + 1 at the first END, and at each bit if `each`.
    """
    within = np.arange(width) < lengths[:, None]
    bits = random.integers(0, 2, (len(lengths), width)) * within
    running = bits.cumsum(axis=1) % 2 + 1
    at_end = np.arange(width) == lengths[:, None]
    scored = at_end | within if each else at_end
    return np.where(within, bits + 1, END), np.where(scored, running, IGNORE)


class GroupWord(Generated):
    """Running products in a finite group; the rule stands with the options."""

    options: A5Word

    def __init__(self, options: A5Word) -> None:
        self.table = multiplication_table(symmetric(5) if options.name == "s5_word" else alternating(5))
        super().__init__(options)

    @property
    def order(self) -> int:
        """|G|, the number of elements."""
        return len(self.table)

    def signature(self, sequence_length: int) -> Signature:
        """|G| ids in, |G| classes at each position out."""
        return Signature(vocab_size=self.order, outputs=self.order, sequence_length=sequence_length)

    def draw(self, random: np.random.Generator, count: int, length: int) -> Examples:
        """Inputs and targets [N, T] int64."""
        elements = random.integers(0, self.order, (count, length))
        return elements, running_products(self.table, elements)

    def evaluate(self, model: Predict, batch_size: int, sequence_length: int) -> dict[str, float]:
        """The defaults, whole sequences, and accuracies at twice the trained length."""
        metrics = super().evaluate(model, batch_size, sequence_length)
        _, metrics["val_sequence_accuracy"] = accuracy(model, self.validation(batch_size, sequence_length))
        inputs, targets = self.fixed("validation", self.options.validation_examples, 2 * sequence_length)
        metrics["val_accuracy_2x"], _ = accuracy(model, batches((inputs, targets), batch_size))
        last = targets.copy()
        last[:, :-1] = IGNORE
        metrics["val_last_accuracy_2x"], _ = accuracy(model, batches((inputs, last), batch_size))
        return metrics

    def baseline(self, sequence_length: int) -> dict[str, float]:
        """A uniform element; the current element, which is the product at the first position."""
        by_last = (1 + (sequence_length - 1) / self.order) / sequence_length
        return {"chance": 1 / self.order, "last_element": by_last}

    def smoke(self) -> dict[str, Any]:
        """A GRU on short words, wider for the larger group."""
        return {
            "task": {"name": self.options.name, "validation_examples": 512},
            "model": {"d_model": 128 if self.order > 60 else 96, "n_layers": 1, "mixer": "gru"},
            "training": {
                "steps": 300,
                "batch_size": 256,
                "sequence_length": 3,
                "lr": 1e-2,
                "weight_decay": 0.0,
                "eval_every": 300,
            },
        }


Permutation = tuple[int, ...]


def symmetric(n: int) -> list[Permutation]:
    """All permutations of n points in lexicographic order; the identity comes first."""
    return list(permutations(range(n)))


def alternating(n: int) -> list[Permutation]:
    """The even permutations of n points in lexicographic order; the identity comes first."""
    return [p for p in symmetric(n) if sum(p[i] > p[j] for i in range(n) for j in range(i + 1, n)) % 2 == 0]


def multiplication_table(elements: list[Permutation]) -> np.ndarray:
    """[G, G] int64: table[a, b] is the element "a, then b": point i goes to b[a[i]]."""
    index = {element: i for i, element in enumerate(elements)}
    return np.array([[index[tuple(b[i] for i in a)] for b in elements] for a in elements], np.int64)


def running_products(table: np.ndarray, elements: np.ndarray) -> np.ndarray:
    """[N, T]: at t the product of the elements up to and with t."""
    products = elements.copy()
    for t in range(1, elements.shape[1]):
        products[:, t] = table[products[:, t - 1], elements[:, t]]
    return products
