"""The registries side by side: names, options and sources of everything that a sweep file may name. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workloads.activations.options import ACTIVATIONS
from workloads.errors import nearest
from workloads.feedforward.options import FEEDFORWARDS
from workloads.method import Method
from workloads.mixers.options import MIXERS
from workloads.routers.options import ROUTERS
from workloads.tasks.options import TASKS

REGISTRIES: Mapping[str, Mapping[str, Method]] = {
    "task": TASKS,
    "mixer": MIXERS,
    "feedforward": FEEDFORWARDS,
    "router": ROUTERS,
    "activation": ACTIVATIONS,
}


def list_tasks() -> list[str]:
    """Names of the tasks, sorted."""
    return list(TASKS)


def list_mixers() -> list[str]:
    """Names of the mixers, sorted."""
    return list(MIXERS)


def list_routers() -> list[str]:
    """Names of the routers, sorted."""
    return list(ROUTERS)


def list_feedforwards() -> list[str]:
    """Names of the feed-forward layers, sorted."""
    return list(FEEDFORWARDS)


def list_activations() -> list[str]:
    """Names of the activations, gates and output rules of the feed-forward layers, sorted."""
    return list(ACTIVATIONS)


def method(name: str) -> Method:
    """The method called `name`, whichever registry holds it.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    for methods in REGISTRIES.values():
        if name in methods:
            return methods[name]
    known = [each for methods in REGISTRIES.values() for each in methods]
    raise ValueError(f"{name!r} is not a known method. {nearest(name, known)}")


def chosen(kind: str, name: str, options: Mapping[str, Any]) -> tuple[Method, Any]:
    """The method of that kind and name, and its options checked and completed with defaults.

    Raises:
        ValueError: unknown name; or pydantic's error (a ValueError) for a wrong option.
    """
    methods = REGISTRIES[kind]
    if name not in methods:
        raise ValueError(f"{name!r} is not a known {kind}. {nearest(name, methods)}")
    return methods[name], methods[name].options(name=name, **options)
