"""What a task promises: data as a pure function of (step, seed), a loss, a deterministic evaluation, baselines.

Shapes: B batch, T time, W width of a real-valued input, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = -100
"""Integer target of a position that is not scored."""

Predict = Callable[[Tensor], Tensor]
"""The model at evaluation: inputs on any device -> outputs, float32, on the model's device; no gradient."""

Readout = Literal["position", "last", "mean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """How the shell meets a task's data.

    outputs: width O of the head: classes, or real values.
    vocab_size: inputs are ids [B, T] int64 below this; or
    input_width: inputs are real vectors [B, T, W] float32. Exactly one of the two is given.
    readout: "position" gives outputs [B, T, O]; "last" (of the last position) and "mean" (over positions) [B, O].
        Sequences of unequal length use "position", padding at the right and targets of IGNORE.
    sequence_length: T of the training batches; a task of fixed length gives its own, whatever it was asked for.
    """

    outputs: int
    sequence_length: int
    vocab_size: int | None = None
    input_width: int | None = None
    readout: Readout = "position"

    def __post_init__(self) -> None:
        assert (self.vocab_size is None) != (self.input_width is None), "one of vocab_size and input_width"


@dataclass(frozen=True, slots=True)
class Batch:
    """inputs [B, T] int64 or [B, T, W] float32; targets [B, ...], as the task's loss takes them."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        return Batch(self.inputs.to(device, non_blocking=True), self.targets.to(device, non_blocking=True))

    def rows(self, start: int, stop: int) -> Batch:
        """The sequences from `start` up to `stop`."""
        return Batch(self.inputs[start:stop], self.targets[start:stop])


def data_checksum(task: Task) -> int:
    """The first 48 bits of the task's fingerprint: a float64 column of reports holds them exactly."""
    return int(task.fingerprint[:12], 16)


class Task:
    """Something to learn. Built as `Task(options)`; the options class carries `metric` and `goal` as class variables.

    Subclasses set `fingerprint` and implement `signature`, `batch`, `validation`, `baseline` and `smoke`; the loss
    (cross-entropy, or squared error where targets are real) and the evaluation (`val_loss`, and `val_accuracy` for
    classes) have defaults.

    Promises, held by one suite over the whole registry: `batch` is a pure function of its arguments, so that resume,
    slices over workers and paired seeds need no data position; `evaluate` is deterministic and its result holds
    `metric`; no validation sequence is drawn for training.
    """

    fingerprint: str
    """sha256 of the data, or of the generation rules: results compare only where it is equal."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @property
    def metric(self) -> str:
        """Name of the primary metric."""
        return str(self.options.metric)

    @property
    def goal(self) -> str:
        """ "minimize" or "maximize"."""
        return str(self.options.goal)

    def signature(self, sequence_length: int) -> Signature:
        """What the shell must take in and give out when trained at `sequence_length`."""
        raise TypeError(f"{type(self).__name__} has no signature")

    def batch(self, step: int, seed: int, batch_size: int, sequence_length: int) -> Batch:
        """The global training batch of one step, on the CPU."""
        raise TypeError(f"{type(self).__name__} has no batch")

    def validation(self, batch_size: int, sequence_length: int) -> Iterator[Batch]:
        """The fixed validation data, each example once, in the same order always; independent of any trial's seed."""
        raise TypeError(f"{type(self).__name__} has no validation")

    def baseline(self, sequence_length: int) -> dict[str, float]:
        """What trivial predictors reach, in the unit of `metric`, by name ("unigram", "chance", "persistence")."""
        raise TypeError(f"{type(self).__name__} has no baseline")

    def smoke(self) -> dict[str, Any]:
        """A trial's configuration, as plain data, that beats the trivial baseline clearly within seconds on a CPU."""
        raise TypeError(f"{type(self).__name__} has no smoke size")

    def weight(self, targets: Tensor) -> int:
        """Number of scored targets: `loss` is a mean over them, and parts of a batch are averaged in proportion."""
        return int((targets != IGNORE).sum()) if not targets.is_floating_point() else targets.numel()

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Mean loss over the scored targets, a scalar in nats (classes) or squared units (real targets).

        Args:
            output: the model's, [B, T, O] or [B, O].
            targets: int64 classes [B, T] or [B], IGNORE where not scored; or float32 of the shape of `output`.
        """
        if targets.is_floating_point():
            return F.mse_loss(output.float(), targets)
        return F.cross_entropy(output.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORE)

    def sample_targets(self, output: Tensor, targets: Tensor) -> Tensor:
        """Targets drawn from the distribution whose negative log-likelihood `loss` is, for curvature estimates.

        Classes: one draw from the softmax where `targets` is scored. Real targets: squared error is the likelihood of
        a Gaussian of variance 1/2 about the output. A task with a loss of its own has its own draw.
        """
        if targets.is_floating_point():
            return output.float() + torch.randn_like(targets) * 0.5**0.5
        probabilities = output.float().softmax(-1)
        drawn = torch.multinomial(probabilities.flatten(0, -2), 1).view_as(targets)
        return torch.where(targets == IGNORE, targets, drawn)

    def evaluate(self, model: Predict, batch_size: int, sequence_length: int) -> dict[str, float]:
        """Metrics on the whole validation data."""
        loss_sum, right, count = 0.0, 0, 0
        classes = False
        for batch in self.validation(batch_size, sequence_length):
            output = model(batch.inputs)
            targets = batch.targets.to(output.device)
            weight = self.weight(targets)
            loss_sum += float(self.loss(output, targets)) * weight
            count += weight
            if not targets.is_floating_point():
                classes = True
                right += int(((output.argmax(-1) == targets) & (targets != IGNORE)).sum())
        metrics = {"val_loss": loss_sum / count}
        return metrics | {"val_accuracy": right / count} if classes else metrics
