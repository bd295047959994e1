"""ListOps: values of nested expressions, drawn many trees at a time. Shapes: N examples, T time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from workloads.tasks.base import IGNORE, Signature
from workloads.tasks.generated import Examples, Generated
from workloads.tasks.options.formal import ListOps as Options

PADDING = 0
DIGITS = 10
FIRST_DIGIT, FIRST_OPERATOR, CLOSE = 1, 11, 15
MIN, MAX, MED, SM = range(4)
OPERATOR_SHARE = 0.25
MAJORITY_SAMPLE = 1000


class ListOps(Generated):
    """Classification of expressions by their value; the rule stands with the options."""

    options: Options

    def signature(self, sequence_length: int) -> Signature:
        """16 ids in, ten classes at each position out; the length is the task's own."""
        return Signature(vocab_size=CLOSE + 1, outputs=DIGITS, sequence_length=self.options.max_length - 1)

    def draw(self, random: np.random.Generator, count: int, length: int) -> Examples:
        """Inputs and targets [N, max_length − 1] int64; draws whole forests until `count` trees have fitted."""
        parts: list[Examples] = []
        found = 0
        while found < count:
            inputs, values = self._fitting(random, 4 * count)
            parts.append((inputs, values))
            found += len(inputs)
        inputs, values = (np.concatenate(column)[:count] for column in zip(*parts, strict=True))
        targets = np.full(inputs.shape, IGNORE, np.int64)
        targets[np.arange(len(inputs)), (inputs != PADDING).sum(1) - 1] = values
        return inputs, targets

    def baseline(self, sequence_length: int) -> dict[str, float]:
        """The most frequent answer of the training split, on validation."""
        _, train = self.fixed("train", MAJORITY_SAMPLE, sequence_length)
        _, validation = self.fixed("validation", self.options.validation_examples, sequence_length)
        most = np.bincount(train[train != IGNORE], minlength=DIGITS).argmax()
        return {"majority": float((validation[validation != IGNORE] == most).mean())}

    def smoke(self) -> dict[str, Any]:
        """A GRU on short, shallow expressions."""
        task = {"name": self.options.name, "min_length": 3, "max_length": 12, "max_depth": 3, "max_arguments": 4}
        return {
            "task": task | {"validation_examples": 512},
            "model": {"d_model": 48, "n_layers": 1, "mixer": "gru"},
            "training": {"steps": 300, "batch_size": 64, "lr": 1e-2, "weight_decay": 0.0, "eval_every": 300},
        }

    def _fitting(self, random: np.random.Generator, roots: int) -> Examples:
        options = self.options
        forest = grow(random, roots, options.max_depth, options.max_arguments, options.max_length)
        sizes = [level.sizes for level in forest]
        keep = np.flatnonzero((sizes[0] > options.min_length) & (sizes[0] < options.max_length))
        return written(forest, keep, options.max_length - 1), forest[0].values[keep]


@dataclass(slots=True)
class Level:
    """The nodes of one depth of a forest, those of one parent side by side, parents in order.

    operators: [M] MIN, MAX, MED or SM; −1 for a digit. arguments: [M] number of children. values, sizes: [M] value
    of the node's expression and its length in tokens. parents: [M] index in the level above.
    """

    operators: np.ndarray
    arguments: np.ndarray
    parents: np.ndarray
    values: np.ndarray
    sizes: np.ndarray


def grow(random: np.random.Generator, roots: int, max_depth: int, max_arguments: int, max_length: int) -> list[Level]:
    """A forest of `roots` trees, level by level, with values and sizes.

    Roots are operators: a root that is a digit is an expression of length 1, which no task keeps. A tree that has
    already reached max_length is not grown further: it cannot shrink, and stays too long.
    """
    tree = np.arange(roots)
    parents = np.zeros(roots, np.int64)
    tokens = np.zeros(roots, np.int64)
    levels: list[Level] = []
    for depth in range(1, max_depth + 1):
        is_operator = random.random(len(tree)) < OPERATOR_SHARE if depth > 1 else np.ones(roots, bool)
        is_operator &= (depth < max_depth) & (tokens[tree] < max_length)
        operators = np.where(is_operator, random.integers(0, 4, len(tree)), -1)
        arguments = np.where(is_operator, random.integers(2, max_arguments + 1, len(tree)), 0)
        digits = random.integers(0, DIGITS, len(tree))
        tokens += np.bincount(tree, 1 + is_operator, minlength=roots).astype(np.int64)
        levels.append(Level(operators, arguments, parents, digits, np.ones(len(tree), np.int64)))
        if not is_operator.any():
            break
        parents = np.repeat(np.arange(len(tree)), arguments)
        tree = np.repeat(tree, arguments)
    for level, below in zip(levels[-2::-1], levels[:0:-1], strict=True):
        _sum_up(level, below)
    return levels


def _sum_up(level: Level, below: Level) -> None:
    """Values and sizes of the operators of `level` from those of their arguments."""
    nodes = np.flatnonzero(level.operators >= 0)
    count = level.arguments[nodes]
    starts = np.cumsum(count) - count
    # Sorted within each node's arguments, so that least, greatest and middle stand at known places
    ordered = below.values[np.lexsort((below.values, below.parents))]
    middle = (ordered[starts + (count - 1) // 2] + ordered[starts + count // 2]) // 2
    results = [ordered[starts], ordered[starts + count - 1], middle, np.add.reduceat(below.values, starts) % DIGITS]
    level.values[nodes] = np.choose(level.operators[nodes], results)
    level.sizes[nodes] = 2 + np.add.reduceat(below.sizes, starts)


def written(forest: list[Level], keep: np.ndarray, width: int) -> np.ndarray:
    """[len(keep), width] int64: the token ids of these trees, prefix order, PADDING to the right."""
    out = np.full((len(keep), width), PADDING, np.int64)
    row = np.full(len(forest[0].operators), -1)
    row[keep] = np.arange(len(keep))
    offset = np.zeros(len(row), np.int64)
    for depth, level in enumerate(forest):
        kept, operator = row >= 0, level.operators >= 0
        token = np.where(operator, FIRST_OPERATOR + level.operators, FIRST_DIGIT + level.values)
        out[row[kept], offset[kept]] = token[kept]
        ends = kept & operator
        out[row[ends], (offset + level.sizes - 1)[ends]] = CLOSE
        if depth + 1 < len(forest):
            below = forest[depth + 1]
            before = np.cumsum(below.sizes) - below.sizes
            first = np.repeat((np.cumsum(level.arguments) - level.arguments)[operator], level.arguments[operator])
            offset = offset[below.parents] + 1 + before - before[first]
            row = row[below.parents]
    return out
