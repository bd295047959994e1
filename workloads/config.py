"""What one trial is: task, model, training, seed. Torch-free; the sweep file's `workload` is this without the seed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

import pydantic

from workloads.activations.options import ACTIVATIONS
from workloads.choice import one_of, one_or_pattern
from workloads.errors import ConfigError, problems_of
from workloads.feedforward.options import FEEDFORWARDS
from workloads.method import Method, option, options
from workloads.mixers.options import MIXERS
from workloads.routers.options import ROUTERS
from workloads.tasks.options import TASKS


@options
class ModelConfig:
    """The shell (embedding, N pre-norm blocks, head) and what fills its two slots."""

    d_model: int = option(64, "Width of the residual stream.", ge=1, sweep=[64, 128, 256])
    n_layers: int = option(2, "Number of blocks.", ge=1, sweep=[2, 4, 8])
    mixer: one_or_pattern(MIXERS) = option(  # type: ignore[valid-type]
        {"name": "gru"}, "Sequence mixer of every block; a list is a pattern that repeats over the blocks."
    )
    feedforward: one_or_pattern(FEEDFORWARDS) = option(  # type: ignore[valid-type]
        {"name": "dense"}, "Feed-forward of every block; a list is a pattern that repeats over the blocks."
    )
    tie_embeddings: bool = option(False, "Share the embedding matrix with the head.")


@options
class TrainingConfig:
    """How a trial is trained and evaluated."""

    steps: int = option(300, "Optimiser steps.", ge=1)
    batch_size: int = option(16, "Sequences a step, over all workers.", ge=1)
    sequence_length: int = option(128, "Tokens a sequence, where the task leaves it open.", ge=1)
    lr: float = option(3e-3, "Peak learning rate.", gt=0, sweep=[3e-4, 1e-3, 3e-3, 1e-2])
    weight_decay: float = option(0.1, "Decoupled weight decay; matrices only.", ge=0)
    warmup_steps: int = option(20, "Steps of linear warm-up.", ge=0)
    schedule: Literal["constant", "cosine", "trapezoid"] = option("cosine", "Learning rate after the warm-up.")
    grad_clip: float = option(1.0, "Largest global gradient norm; 0 for none.", ge=0)
    optimizer: Literal["adamw", "sophia", "grams"] = option(
        "adamw",
        "AdamW; Sophia-G (arXiv:2305.14342), whose best learning rate is about 0.8 of AdamW's; Grams "
        "(arXiv:2412.17107).",
        sweep=["adamw", "sophia", "grams"],
    )
    ema_decay: float | None = option(
        None, "Evaluate an exponential moving average of the weights with this decay.", gt=0, lt=1, sweep=[0.99, 0.999]
    )
    trainable: tuple[str, ...] = option(
        (),
        "Patterns of the names of the parameters that are trained, as `*.up`; the others stay as they start. "
        "All are trained when left out.",
    )
    precision: Literal["float32", "bf16"] = option("float32", "Arithmetic of forward and backward.")
    compile: bool = option(False, "Run the model through torch.compile.")
    eval_every: int = option(50, "Steps between evaluations; also the steps at which a trial reports.", ge=1)
    extrapolate: tuple[pydantic.PositiveInt, ...] = option(
        (2,), "Multiples of the training length at which the primary metric is measured too, at the end."
    )
    checkpoint_every: int | None = option(None, "Steps between checkpoints; at each evaluation when left out.", ge=1)
    keep_checkpoints: int = option(2, "Newest checkpoints to keep, besides the best.", ge=1)
    figures: bool = option(True, "Draw the trial's figures into the checkpoint directory at its end.")
    accumulate: int = option(1, "Parts in which a worker computes its share of the batch, to save memory.", ge=1)
    divergence_factor: float = option(
        10.0, "The trial has diverged when its training loss is over this many times that of its first report.", gt=1
    )


@options
class TrialConfig:
    """Everything that determines one trial's numbers."""

    task: one_of(TASKS) = option({"name": "bytes_lm"}, "What is learned.")  # type: ignore[valid-type]
    model: ModelConfig = option(default_factory=ModelConfig, description="What learns.")
    training: TrainingConfig = option(default_factory=TrainingConfig, description="How it learns.")
    seed: int = option(0, "Seed of initialisation, data order and everything random.", ge=0, lt=2**63)

    @classmethod
    def parse(cls, document: Mapping[str, Any] | Self) -> Self:
        """`document` as a typed configuration.

        Raises:
            ConfigError: with every problem found, each with its path.
        """
        if isinstance(document, cls):
            return document
        try:
            return _adapter().validate_python(document)  # type: ignore[return-value]
        except pydantic.ValidationError as error:
            raise ConfigError(problems_of(error, document, known_keys(document))) from None

    def document(self) -> dict[str, Any]:
        """The full configuration as plain data, every default written out; `parse` takes it back."""
        return _adapter().dump_python(self)


@functools.cache
def _adapter() -> pydantic.TypeAdapter[TrialConfig]:
    # Built once: a plan of ten thousand trials parses each of them, and building takes longer than parsing.
    return pydantic.TypeAdapter(TrialConfig)


def known_keys(document: Any) -> dict[str, Iterable[str]]:
    """By the dotted path of each mapping of a trial's document, the keys that it may have."""
    found: dict[str, Iterable[str]] = {
        "": _names(TrialConfig),
        "model": _names(ModelConfig),
        "training": _names(TrainingConfig),
    }
    if isinstance(document, Mapping):
        _collect(document.get("task"), "task", TASKS, found)
        model = document.get("model")
        if isinstance(model, Mapping):
            _collect(model.get("mixer"), "model.mixer", MIXERS, found)
            _collect(model.get("feedforward"), "model.feedforward", FEEDFORWARDS, found)
    return found


def _collect(node: Any, path: str, methods: Mapping[str, Method], found: dict[str, Iterable[str]]) -> None:
    if isinstance(node, list):
        for i, item in enumerate(node):
            _collect(item, f"{path}.{i}", methods, found)
    elif isinstance(node, Mapping):
        method = methods.get(str(node.get("name")))
        if method:
            found[path] = method.fields
        _collect(node.get("router"), f"{path}.router", ROUTERS, found)
        _collect(node.get("activation"), f"{path}.activation", ACTIVATIONS, found)


def _names(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]
