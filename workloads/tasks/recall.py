"""Associative recall. Shapes: N examples, T time, K pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from workloads.errors import ConfigError, Problem
from workloads.tasks.base import IGNORE, Predict, Signature
from workloads.tasks.generated import Examples, Generated, accuracy, distinct
from workloads.tasks.options.recall import MQAR as Options


class MQAR(Generated):
    """Multi-query associative recall; the rule stands with the options."""

    options: Options

    @property
    def probe_length(self) -> int:  # type: ignore[override]
        """The shortest sequence that holds all pairs and queries."""
        return 4 * int(self.options.num_pairs)

    def signature(self, sequence_length: int) -> Signature:
        """Ids in, one of V classes at each position out."""
        needed = 4 * self.options.num_pairs
        if sequence_length < needed or sequence_length % 2:
            problem = (
                f"{sequence_length} tokens cannot hold {self.options.num_pairs} pairs and their queries; "
                f"expected an even number, at least {needed} (4 for each pair)."
            )
            hint = "Lengthen it, or lower task.num_pairs."
            raise ConfigError([Problem(("training", "sequence_length"), problem, hint)])
        vocab = self.options.vocab_size
        return Signature(vocab_size=vocab, outputs=vocab, sequence_length=sequence_length)

    def draw(self, random: np.random.Generator, count: int, length: int) -> Examples:
        """Inputs and targets [N, T] int64."""
        vocab, pairs = self.options.vocab_size, self.options.num_pairs
        keys = 1 + distinct(random, count, pairs, vocab // 2 - 1)
        values = vocab // 2 + distinct(random, count, pairs, vocab // 2)
        places = 2 * pairs + 2 * power_law_places(random, count, pairs, (length - 2 * pairs) // 2, self.options.power_a)
        inputs = np.zeros((count, length), np.int64)
        inputs[:, 0 : 2 * pairs : 2], inputs[:, 1 : 2 * pairs : 2] = keys, values
        np.put_along_axis(inputs, places, keys, axis=1)
        targets = np.full((count, length), IGNORE, np.int64)
        np.put_along_axis(targets, places, values, axis=1)
        if self.options.random_non_queries:
            inputs = np.where(inputs == 0, random.integers(0, vocab, inputs.shape), inputs)
        return inputs, targets

    def evaluate(self, model: Predict, batch_size: int, sequence_length: int) -> dict[str, float]:
        """The defaults, and `val_sequence_accuracy`: all queries of a sequence right."""
        metrics = super().evaluate(model, batch_size, sequence_length)
        _, whole = accuracy(model, self.validation(batch_size, sequence_length))
        return metrics | {"val_sequence_accuracy": whole}

    def baseline(self, sequence_length: int) -> dict[str, float]:
        """A uniform value; one of the values that the sequence holds."""
        return {"chance": 2 / self.options.vocab_size, "any_value": 1 / self.options.num_pairs}

    def smoke(self) -> dict[str, Any]:
        """Attention to the step before, then to all steps: the two heads that recall is made of."""
        near = {"name": "local_attention", "window": 2, "num_heads": 1}
        return {
            "task": {"name": self.options.name, "vocab_size": 16, "num_pairs": 4, "validation_examples": 128},
            "model": {"d_model": 32, "n_layers": 2, "mixer": [near, {"name": "attention", "num_heads": 1}]},
            "training": {
                "steps": 500,
                "batch_size": 64,
                "sequence_length": 16,
                "lr": 3e-3,
                "weight_decay": 0.0,
                "eval_every": 500,
            },
        }


def power_law_places(random: np.random.Generator, rows: int, count: int, below: int, a: float) -> np.ndarray:
    """[rows, count] int64 in [0, below): drawn one after another without repetition, p(g) ∝ (g+1)^(a−1).

    Gumbel top-K: the K largest of log p + Gumbel noise, in falling order, have this distribution.
    """
    scores = (a - 1) * np.log(np.arange(1, below + 1)) + random.gumbel(size=(rows, below))
    best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
    return np.take_along_axis(best, order, axis=1).astype(np.int64)
