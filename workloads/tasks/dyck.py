"""Dyck languages of bounded depth. Shapes: N examples, T time."""

from __future__ import annotations

from typing import Any

import numpy as np

from workloads.tasks.base import IGNORE, Predict, Signature
from workloads.tasks.generated import Examples, Generated
from workloads.tasks.options.formal import Dyck as Options

PADDING = 0
NEAR = 8


class Dyck(Generated):
    """Language modelling of Dyck-(k, m) strings; the rule stands with the options."""

    options: Options

    def signature(self, sequence_length: int) -> Signature:
        """2k+1 ids in, as many classes at each position out; the length is the task's own."""
        vocab = 2 * self.options.kinds + 1
        return Signature(vocab_size=vocab, outputs=vocab, sequence_length=self.options.max_length - 1)

    def draw(self, random: np.random.Generator, count: int, length: int) -> Examples:
        """Inputs and targets [N, max_length − 1] int64."""
        options = self.options
        strings = dyck_strings(random, count, options.kinds, options.depth, options.min_length, options.max_length)
        return strings[:, :-1], np.where(strings[:, 1:] == PADDING, IGNORE, strings[:, 1:])

    def evaluate(self, model: Predict, batch_size: int, sequence_length: int) -> dict[str, float]:
        """The defaults, and accuracies on closing brackets by the distance to their opening."""
        metrics = super().evaluate(model, batch_size, sequence_length)
        k = self.options.kinds
        right = np.zeros(2, np.int64)
        total = np.zeros(2, np.int64)
        for batch in self.validation(batch_size, sequence_length):
            targets = batch.targets.numpy()
            guess = (model(batch.inputs)[..., k + 1 :].argmax(-1) + k + 1).cpu().numpy()
            strings = np.concatenate([batch.inputs.numpy()[:, :1], np.where(targets == IGNORE, PADDING, targets)], 1)
            far = (closing_distances(strings, k)[:, 1:] > NEAR).astype(np.int64)
            closes = targets > k
            right += np.bincount(far[closes], (guess == targets)[closes], minlength=2).astype(np.int64)
            total += np.bincount(far[closes], minlength=2)
        near, distant = right / np.maximum(total, 1)
        metrics |= {"val_close_accuracy": float(right.sum() / total.sum()), "val_close_accuracy_near": float(near)}
        return metrics | {"val_close_accuracy_far": float(distant)}

    def baseline(self, sequence_length: int) -> dict[str, float]:
        """A uniform closing bracket."""
        return {"chance": 1 / self.options.kinds}

    def smoke(self) -> dict[str, Any]:
        """An LSTM on short, shallow strings."""
        task = {"name": self.options.name, "kinds": 4, "depth": 2, "min_length": 6, "max_length": 24}
        return {
            "task": task | {"validation_examples": 128},
            "model": {"d_model": 32, "n_layers": 1, "mixer": "lstm"},
            "training": {"steps": 150, "batch_size": 32, "lr": 1e-2, "weight_decay": 0.0, "eval_every": 150},
        }


def dyck_strings(
    random: np.random.Generator, count: int, kinds: int, depth: int, min_length: int, max_length: int
) -> np.ndarray:
    """At most `count` strings [N, max_length] int64, PADDING to the right; those that grow too long are left out.

    All strings grow together, one symbol a round. The stack of each holds the kinds of its open brackets.
    """
    strings = np.zeros((count, max_length), np.int64)
    stack = np.zeros((count, depth), np.int64)
    level = np.zeros(count, np.int64)
    rows = np.arange(count)
    coins = random.random((max_length, count)) < 0.5
    fresh = random.integers(1, kinds + 1, (max_length, count))
    growing = np.ones(count, bool)
    for t in range(max_length):
        growing &= (level > 0) | (t < min_length)
        opens = growing & ((level == 0) | ((level < depth) & coins[t]))
        closes = growing & ~opens
        stack[rows[opens], level[opens]] = fresh[t, opens]
        strings[opens, t] = fresh[t, opens]
        strings[closes, t] = stack[rows[closes], level[closes] - 1] + kinds
        level += opens
        level -= closes
    return strings[level == 0]


def closing_distances(strings: np.ndarray, kinds: int) -> np.ndarray:
    """[N, T]: at a closing bracket the number of places back to its opening, 0 elsewhere."""
    opens, closes = (strings > 0) & (strings <= kinds), strings > kinds
    level = np.cumsum(opens.astype(np.int64) - closes, axis=1)
    opened_at = np.zeros((len(strings), level.max(initial=0) + 1), np.int64)
    distances = np.zeros_like(strings)
    for t in range(strings.shape[1]):
        o, c = np.flatnonzero(opens[:, t]), np.flatnonzero(closes[:, t])
        opened_at[o, level[o, t] - 1] = t
        distances[c, t] = t - opened_at[c, level[c, t]]
    return distances
