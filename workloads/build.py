"""From names and options to modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workloads.catalog import chosen
from workloads.config import TrialConfig
from workloads.shell import SequenceModel
from workloads.slots import Feedforward, Mixer, Router
from workloads.tasks.base import Task


def build_mixer(name: str, d_model: int, **options: Any) -> Mixer:
    """The mixer `name` at width `d_model`. See `workloads.slots.Mixer` for what it promises.

    Raises:
        ValueError: unknown name, or an option that the mixer does not take.
    """
    method, checked = chosen("mixer", name, options)
    return method.load()(d_model, checked)  # type: ignore[no-any-return]


def build_router(name: str, d_model: int, num_experts: int, **options: Any) -> Router:
    """The router `name` over `num_experts` experts. See `workloads.slots.Router`.

    Raises:
        ValueError: unknown name, or an option that the router does not take.
    """
    method, checked = chosen("router", name, options)
    return method.load()(d_model, num_experts, checked)  # type: ignore[no-any-return]


def build_feedforward(name: str, d_model: int, **options: Any) -> Feedforward:
    """The feed-forward `name` at width `d_model`. See `workloads.slots.Feedforward`.

    Raises:
        ValueError: unknown name, or an option that the layer does not take.
    """
    method, checked = chosen("feedforward", name, options)
    return method.load()(d_model, checked)  # type: ignore[no-any-return]


def build_task(name: str, **options: Any) -> Task:
    """The task `name`. See `workloads.tasks.base.Task`.

    Raises:
        ValueError: unknown name, or an option that the task does not take.
    """
    method, checked = chosen("task", name, options)
    return method.load()(checked)  # type: ignore[no-any-return]


def build_model(config: TrialConfig | Mapping[str, Any]) -> SequenceModel:
    """The model of one trial, initialised from the global RNG (seed it first).

    Raises:
        ConfigError: the configuration is wrong.
    """
    trial = TrialConfig.parse(config)
    task = build_task(trial.task.name, **_options(trial.task))
    return SequenceModel(trial.model, task.signature(trial.training.sequence_length))


def _options(choice: Any) -> dict[str, Any]:
    return {name: getattr(choice, name) for name in type(choice).__pydantic_fields__ if name != "name"}
