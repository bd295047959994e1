"""Polyphonic music as piano rolls. Shapes: B pieces, T frames, 88 keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from workloads import seeding
from workloads.datasets import music
from workloads.tasks.base import Batch, Predict, Signature, Task
from workloads.tasks.finite import fingerprint, fitted_once, rows_of_step
from workloads.tasks.linear import logistic_regression
from workloads.tasks.options.music import JSBChorales as JSBOptions
from workloads.tasks.options.music import ToyChorales as ToyOptions

KEYS = music.KEYS
SILENT = -1.0
"""Target of the frames after a piece's end, which are not scored."""


class Chorales(Task):
    """Frame-level modelling of pieces; the rule stands with the options of the subclasses."""

    def __init__(self, options: Any, pieces: Mapping[str, music.Rolls]) -> None:
        super().__init__(options)
        self.pieces = pieces
        lengths = [np.array([len(p) for p in pieces[split]]) for split in music.SPLITS]
        self.fingerprint = fingerprint(options, *lengths, *(np.concatenate(pieces[s]) for s in music.SPLITS))

    def signature(self, sequence_length: int) -> Signature:
        """88 reals in, 88 logits out at each frame; the nominal length is the mean of the training pieces'."""
        mean = round(float(np.mean([len(piece) for piece in self.pieces["train"]])))
        return Signature(input_width=KEYS, outputs=KEYS, sequence_length=mean)

    def batch(self, step: int, seed: int, batch_size: int, sequence_length: int) -> Batch:
        """Whole pieces [B, T, 88], T the longest of them."""
        train = self.pieces["train"]
        return padded([train[i] for i in rows_of_step(seed, step, batch_size, len(train))])

    def validation(self, batch_size: int, sequence_length: int) -> Iterator[Batch]:
        """The pieces of the validation split, whole."""
        return self.split("valid", batch_size)

    def split(self, name: str, batch_size: int) -> Iterator[Batch]:
        """The pieces of a split by length, so that little is padded."""
        pieces = sorted(self.pieces[name], key=len)
        for i in range(0, len(pieces), batch_size):
            yield padded(pieces[i : i + batch_size])

    def weight(self, targets: Tensor) -> int:
        """Frames that are scored."""
        return int((targets[..., 0] != SILENT).sum())

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy in nats, summed over the keys, mean over the scored frames.

        Args:
            output: logits [B, T, 88]. targets: [B, T, 88] of 0 and 1, SILENT after a piece's end.
        """
        scored = targets != SILENT
        each = F.binary_cross_entropy_with_logits(output.float(), targets.clamp_min(0), reduction="none")
        return (each * scored).sum() / scored[..., 0].sum().clamp_min(1)

    def sample_targets(self, output: Tensor, targets: Tensor) -> Tensor:
        """Each key drawn alone, with the probability that the model gives it."""
        return torch.where(targets == SILENT, targets, torch.bernoulli(output.float().sigmoid()))

    def evaluate(self, model: Predict, batch_size: int, sequence_length: int) -> dict[str, float]:
        """`val_nll` (also as `val_loss`) and `test_nll`."""
        validation, test = (self._nll(model, split, batch_size) for split in ("valid", "test"))
        return {"val_loss": validation, "val_nll": validation, "test_nll": test}

    def baseline(self, sequence_length: int) -> dict[str, float]:
        """Nats a frame on the validation split of key frequencies, and of logistic regression on the frame before."""
        return self.baselines("valid")

    @fitted_once
    def baselines(self, split: str) -> dict[str, float]:
        """The baselines, fitted to the training split, on any split."""
        before, frames = _pairs(self.pieces["train"])
        predict = logistic_regression(before, frames)
        share = (frames.sum(0) + 0.5) / (len(frames) + 1)
        before, frames = _pairs(self.pieces[split])
        unigram = torch.from_numpy(np.log(share / (1 - share)).astype(np.float32)).expand(len(frames), KEYS)
        targets = torch.from_numpy(frames)
        return {"unigram": float(self.loss(unigram, targets)), "logistic": float(self.loss(predict(before), targets))}

    def smoke(self) -> dict[str, Any]:
        """A GRU that knows more than the frequencies of the keys."""
        return {
            "task": {"name": self.options.name},
            "model": {"d_model": 48, "n_layers": 1, "mixer": "gru"},
            "training": {"steps": 100, "batch_size": 16, "lr": 1e-2, "eval_every": 100},
        }

    def _nll(self, model: Predict, split: str, batch_size: int) -> float:
        total, frames = 0.0, 0
        for batch in self.split(split, batch_size):
            output = model(batch.inputs)
            weight = self.weight(batch.targets)
            total += float(self.loss(output, batch.targets.to(output.device))) * weight
            frames += weight
        return total / frames


class JSBChorales(Chorales):
    """JSB-m21."""

    def __init__(self, options: JSBOptions) -> None:
        super().__init__(options, music.read_chorales())


class ToyChorales(Chorales):
    """Generated chorales."""

    def __init__(self, options: ToyOptions) -> None:
        sizes = {"train": options.pieces, "valid": options.pieces // 4, "test": options.pieces // 4}
        random = seeding.numpy_generator(0, "toy_chorales")
        super().__init__(options, {split: [toy_chorale(random) for _ in range(n)] for split, n in sizes.items()})

    def smoke(self) -> dict[str, Any]:
        """The same on fewer pieces than JSB-m21 has."""
        smoke = super().smoke()
        return smoke | {"task": {"name": self.options.name, "pieces": self.options.pieces}}


def padded(pieces: music.Rolls) -> Batch:
    """Inputs and targets [B, T, 88] float32: a frame is predicted from those before it, the first from silence."""
    longest = max(len(piece) for piece in pieces)
    inputs = torch.zeros(len(pieces), longest, KEYS)
    targets = torch.full((len(pieces), longest, KEYS), SILENT)
    for row, piece in enumerate(pieces):
        frames = torch.from_numpy(piece)
        inputs[row, 1 : len(piece)] = frames[:-1].float()
        targets[row, : len(piece)] = frames.float()
    return Batch(inputs, targets)


def _pairs(pieces: music.Rolls) -> tuple[np.ndarray, np.ndarray]:
    """Frames and what precedes them, both [frames, 88] float32, all pieces together."""
    frames = np.concatenate(pieces).astype(np.float32)
    before = np.zeros_like(frames)
    before[1:] = frames[:-1]
    before[np.cumsum([0, *(len(p) for p in pieces[:-1])])] = 0
    return before, frames


LOWEST_KEY = 21
ROOTS = (0, 2, 4, 5, 7, 9)
"""Pitch classes of the degrees I, ii, iii, IV, V, vi."""
TRIADS = ((0, 4, 7), (2, 5, 9), (4, 7, 11), (5, 9, 0), (7, 11, 2), (9, 0, 4))
MOVES = np.array(
    [
        [0.20, 0.10, 0.05, 0.25, 0.25, 0.15],
        [0.05, 0.15, 0.00, 0.10, 0.65, 0.05],
        [0.05, 0.05, 0.10, 0.30, 0.05, 0.45],
        [0.30, 0.10, 0.00, 0.15, 0.40, 0.05],
        [0.60, 0.00, 0.05, 0.05, 0.15, 0.15],
        [0.05, 0.30, 0.05, 0.30, 0.20, 0.10],
    ]
)
RANGES = ((60, 81), (55, 74), (48, 69), (40, 62))
"""Lowest and highest MIDI pitch of soprano, alto, tenor and bass."""
SECOND_NEAREST = 0.2


def toy_chorale(random: np.random.Generator) -> np.ndarray:
    """[frames, 88] bool, 24 to 48 frames."""
    degree, pitches = 0, [72, 64, 55, 48]
    frames = np.zeros((random.integers(24, 49), KEYS), bool)
    for frame in frames:
        degree = int(random.choice(len(ROOTS), p=MOVES[degree]))
        for voice, (low, high) in enumerate(RANGES):
            tones = (ROOTS[degree],) if voice == len(RANGES) - 1 else TRIADS[degree]
            options = sorted(
                (p for p in range(low, high + 1) if p % 12 in tones), key=lambda p: abs(p - pitches[voice])
            )
            pitches[voice] = options[int(random.random() < SECOND_NEAREST)]
        frame[np.array(pitches) - LOWEST_KEY] = True
    return frames
