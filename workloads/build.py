"""From names and options to modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workloads.catalog import chosen
from workloads.config import TrialConfig
from workloads.shell import SequenceModel
from workloads.slots import Feedforward, Mixer, Router
from workloads.tasks.base import Task
from workloads.tasks.options import TASKS


def build_mixer(name: str, d_model: int, **options: Any) -> Mixer:
    """The mixer `name` at width `d_model`. See `workloads.slots.Mixer` for what it promises.

    Raises:
        ValueError: unknown name, or an option that the mixer does not take.
    """
    method, checked = chosen("mixer", name, options)
    return method.load()(d_model, checked)


def build_router(name: str, d_model: int, num_experts: int, **options: Any) -> Router:
    """The router `name` over `num_experts` experts. See `workloads.slots.Router`.

    A default `k` is cut to the number of experts; a given one must fit.

    Raises:
        ValueError: unknown name, an option that the router does not take, or k over the number of experts.
    """
    method, checked = chosen("router", name, options)
    if options.get("k", 1) > num_experts:
        raise ValueError(f"{name}: k ({options['k']}) is more than num_experts ({num_experts}); lower k or add experts")
    return method.load()(d_model, num_experts, checked)


def build_feedforward(name: str, d_model: int, **options: Any) -> Feedforward:
    """The feed-forward `name` at width `d_model`. See `workloads.slots.Feedforward`.

    Raises:
        ValueError: unknown name, or an option that the layer does not take.
    """
    method, checked = chosen("feedforward", name, options)
    return method.load()(d_model, checked)


def build_task(name: str, **options: Any) -> Task:
    """The task `name`. See `workloads.tasks.base.Task`.

    Raises:
        ValueError: unknown name, or an option that the task does not take.
    """
    method, checked = chosen("task", name, options)
    return method.load()(checked)


def build_model(config: TrialConfig | Mapping[str, Any]) -> SequenceModel:
    """The model of one trial, initialised from the global RNG (seed it first).

    Raises:
        ConfigError: the configuration is wrong.
    """
    trial = TrialConfig.parse(config)
    return SequenceModel(trial.model, task_of(trial).signature(trial.training.sequence_length))


def task_of(trial: TrialConfig) -> Task:
    """The task of a checked configuration."""
    return TASKS[trial.task.name].load()(trial.task)
