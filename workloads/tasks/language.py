"""Language modelling over bytes. Shapes: B batch, T time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from workloads import seeding
from workloads.data import corpora
from workloads.errors import DataError
from workloads.tasks import ngram
from workloads.tasks.base import IGNORE, Batch, Predict, Signature, Task
from workloads.tasks.finite import fitted_once
from workloads.tasks.options.language import BytesLM as Options

BYTES = 256
SMALLEST_VALIDATION = 64
COUNTED = 8_000_000


class BytesLM(Task):
    """Next-byte prediction on a corpus and its split into train, validation and test.

    `val_bpb` is the mean of −log₂ p over every byte of the validation split. The split is read in windows of the
    sequence length, side by side; the context of a byte is what precedes it in its window, and for a window's first
    byte the one byte before.
    """

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        text = corpora.read_corpus(options.corpus)
        data, self.validation_start, self.test_start = text.data, text.validation_start, text.test_start
        self.fingerprint = text.fingerprint
        self.bytes = np.frombuffer(data, dtype=np.uint8)
        size = len(data)
        if self.test_start - self.validation_start < SMALLEST_VALIDATION:
            raise DataError(
                f"corpus {options.corpus!r} has {size} bytes; its validation split would have "
                f"{self.test_start - self.validation_start}, and at least {SMALLEST_VALIDATION} are needed. "
                "Give a longer text."
            )

    @property
    def train_bytes(self) -> np.ndarray:
        """The training split, uint8."""
        return self.bytes[: self.validation_start]

    @property
    def validation_bytes(self) -> np.ndarray:
        """The validation split, uint8."""
        return self.bytes[self.validation_start : self.test_start]

    def signature(self, sequence_length: int) -> Signature:
        """Ids of bytes in, 256 classes at each position out."""
        if sequence_length >= self.validation_start:
            raise DataError(
                f"training.sequence_length ({sequence_length}) leaves no window in the {self.validation_start} bytes "
                f"of training text of corpus {self.options.corpus!r}. Shorten it, or give a longer text."
            )
        return Signature(vocab_size=BYTES, outputs=BYTES, sequence_length=sequence_length)

    def batch(self, step: int, seed: int, batch_size: int, sequence_length: int) -> Batch:
        """Windows at uniformly drawn offsets of the training split; targets are the bytes one further on."""
        random = seeding.numpy_generator(seed, "data", step)
        starts = random.integers(0, self.validation_start - sequence_length, size=(batch_size, 1))
        windows = torch.from_numpy(self.bytes[starts + np.arange(sequence_length + 1)].astype(np.int64))
        return Batch(windows[:, :-1], windows[:, 1:])

    def validation(self, batch_size: int, sequence_length: int) -> Iterator[Batch]:
        """The validation split in windows; the last one is filled up with targets of IGNORE."""
        start, stop = self.validation_start, self.test_start
        count = math.ceil((stop - start) / sequence_length)
        inputs = np.zeros((count, sequence_length), np.int64)
        targets = np.full((count, sequence_length), IGNORE, np.int64)
        inputs.flat[: stop - start] = self.bytes[start - 1 : stop - 1]
        targets.flat[: stop - start] = self.bytes[start:stop]
        for i in range(0, count, batch_size):
            yield Batch(torch.from_numpy(inputs[i : i + batch_size]), torch.from_numpy(targets[i : i + batch_size]))

    def evaluate(self, model: Predict, batch_size: int, sequence_length: int) -> dict[str, float]:
        """`val_loss` in nats, `val_accuracy`, and `val_bpb` = val_loss / ln 2."""
        metrics = super().evaluate(model, batch_size, sequence_length)
        return metrics | {"val_bpb": metrics["val_loss"] / math.log(2)}

    @fitted_once
    def baseline(self, sequence_length: int) -> dict[str, float]:
        """Bits per byte on the validation split of byte models counted on the last 8 MB of the training split.

        unigram: order 1, trivial. ngram5: order 5, which a neural model that is worth its training must beat.
        """
        train = self.train_bytes[-COUNTED:]
        return {
            name: ngram.bits_per_byte(train, self.train_bytes, self.validation_bytes, order)
            for name, order in (("unigram", 1), ("ngram5", 5))
        }

    def smoke(self) -> dict[str, Any]:
        """A GRU that is far below the unigram entropy after about a hundred small steps."""
        return {
            "task": {"name": self.options.name, "corpus": self.options.corpus},
            "model": {"d_model": 48, "n_layers": 1, "mixer": "gru", "feedforward": {"name": "dense"}},
            "training": {"steps": 120, "batch_size": 16, "sequence_length": 64, "lr": 1e-2, "eval_every": 120},
        }
