"""Tasks whose examples are drawn by rules: the split by content, the fixed validation set, the fingerprint.

Shapes: N examples, T time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch

from workloads import seeding
from workloads.tasks.base import IGNORE, Batch, Predict, Task

Split = Literal["train", "validation"]
Examples = tuple[np.ndarray, np.ndarray]
"""Inputs [N, T] or [N, T, W] and targets [N, ...]; integers are ids, real numbers float32."""

VALIDATION_SHARE = 8
"""One sequence in this many belongs to validation."""
VALIDATION_SEED = 0
LARGEST_DRAW = 2048
PROBE = 16
PROBE_LENGTH = 64


class Generated(Task):
    """A task over examples without end.

    Subclasses implement `draw` and `signature`. A sequence belongs to validation when its content's hash says so,
    hence no sequence is ever in both splits, however many are drawn. The fingerprint is the sha256 of the options
    and of a few examples drawn from fixed seeds: it changes when the rules do.
    """

    probe_length = PROBE_LENGTH

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._kept: dict[tuple[Any, ...], Examples] = {}
        self.fingerprint = self._fingerprint()

    def draw(self, random: np.random.Generator, count: int, length: int) -> Examples:
        """About `count` independent examples (fewer where rules reject some), those of both splits mixed."""
        raise TypeError(f"{type(self).__name__} has no draw")

    def batch(self, step: int, seed: int, batch_size: int, sequence_length: int) -> Batch:
        """`batch_size` fresh examples of the training split."""
        random = seeding.numpy_generator(seed, "data", step)
        return _to_batch(self.examples("train", random, batch_size, sequence_length))

    def validation(self, batch_size: int, sequence_length: int) -> Iterator[Batch]:
        """`validation_examples` examples of the validation split."""
        return batches(self.fixed("validation", self.options.validation_examples, sequence_length), batch_size)

    def fixed(self, split: Split, count: int, length: int) -> Examples:
        """`count` examples of a split that never change; kept after the first call."""
        key = (split, count, length)
        if key not in self._kept:
            random = seeding.numpy_generator(VALIDATION_SEED, "fixed", split, length)
            self._kept[key] = self.examples(split, random, count, length)
        return self._kept[key]

    def examples(self, split: Split, random: np.random.Generator, count: int, length: int) -> Examples:
        """`count` examples of one split: drawn until enough have fallen into it."""
        share = 1 / VALIDATION_SHARE if split == "validation" else 1 - 1 / VALIDATION_SHARE
        parts: list[Examples] = []
        missing = count
        while missing > 0:
            wanted = min(LARGEST_DRAW, int(missing / share * 1.1) + 4)
            inputs, targets = self.draw(random, wanted, length)
            keep = np.flatnonzero(in_validation(inputs) == (split == "validation"))[:missing]
            parts.append((inputs[keep], targets[keep]))
            missing -= len(keep)
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _fingerprint(self) -> str:
        random = seeding.numpy_generator(VALIDATION_SEED, "fingerprint")
        inputs, targets = self.draw(random, PROBE, self.probe_length)
        digest = hashlib.sha256(repr(self.options).encode())
        for array in (inputs, targets):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def batches(examples: Examples, batch_size: int) -> Iterator[Batch]:
    """The examples in order, `batch_size` at a time."""
    inputs, targets = examples
    for i in range(0, len(inputs), batch_size):
        yield _to_batch((inputs[i : i + batch_size], targets[i : i + batch_size]))


def in_validation(inputs: np.ndarray) -> np.ndarray:
    """[N] bool: which sequences belong to validation. Trailing ids of 0 (padding) make no difference."""
    return content_hash(inputs) % np.uint64(VALIDATION_SHARE) == 0


def content_hash(inputs: np.ndarray) -> np.ndarray:
    """[N] uint64: Σ_t x_t m_t with fixed odd multipliers, then the finaliser of SplitMix64."""
    rows = np.ascontiguousarray(inputs).reshape(len(inputs), -1)
    words = rows.view(np.uint32) if rows.dtype == np.float32 else rows
    multipliers = _splitmix(np.arange(words.shape[1], dtype=np.uint64)) | np.uint64(1)
    return _splitmix(words.astype(np.uint64) @ multipliers)


def _splitmix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def distinct(random: np.random.Generator, rows: int, count: int, below: int) -> np.ndarray:
    """[rows, count] int64 in [0, below), uniform over sequences without repetition within a row."""
    if count * count > 2 * below:
        return random.random((rows, below)).argsort(axis=1)[:, :count].astype(np.int64)
    drawn = random.integers(0, below, (rows, count))
    while True:
        ordered = np.sort(drawn, axis=1)
        again = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
        if not len(again):
            return drawn
        # The whole row is drawn anew: replacing the repeated one alone would favour some sequences
        drawn[again] = random.integers(0, below, (len(again), count))


def accuracy(model: Predict, data: Iterator[Batch]) -> tuple[float, float]:
    """Share of scored positions that are right, and share of sequences with all of them right."""
    right, scored, whole, sequences = 0, 0, 0, 0
    for batch in data:
        output = model(batch.inputs)
        targets = batch.targets.to(output.device)
        mask = targets != IGNORE
        hit = (output.argmax(-1) == targets) & mask
        right, scored = right + int(hit.sum()), scored + int(mask.sum())
        whole, sequences = whole + int((hit == mask).reshape(len(batch), -1).all(1).sum()), sequences + len(batch)
    return right / scored, whole / sequences


def _to_batch(examples: Examples) -> Batch:
    inputs, targets = (torch.from_numpy(np.ascontiguousarray(a)) for a in examples)
    return Batch(inputs, targets)
