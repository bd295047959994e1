"""Research code of orch: tasks, models and the training loop; trains on a laptop without the service.

config -> build (shell, mixers, feed-forward, routers) -> train -> evaluate, checkpoint, diagnostics

`list_*` and `method` are torch-free; `build_*` and `train` import torch when they are first called, because a
sweep file is checked in processes that must start in a fraction of a second.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from workloads.catalog import list_activations, list_feedforwards, list_mixers, list_routers, list_tasks, method
from workloads.config import TrialConfig
from workloads.errors import ConfigError

if TYPE_CHECKING:
    from workloads.build import build_feedforward, build_mixer, build_model, build_router, build_task
    from workloads.train import train

_HEAVY = {
    "build_feedforward": "workloads.build",
    "build_mixer": "workloads.build",
    "build_model": "workloads.build",
    "build_router": "workloads.build",
    "build_task": "workloads.build",
    "train": "workloads.train",
}

__all__ = [
    "ConfigError",
    "TrialConfig",
    "build_feedforward",
    "build_mixer",
    "build_model",
    "build_router",
    "build_task",
    "list_activations",
    "list_feedforwards",
    "list_mixers",
    "list_routers",
    "list_tasks",
    "method",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HEAVY:
        return getattr(importlib.import_module(_HEAVY[name]), name)
    raise AttributeError(f"module 'workloads' has no attribute {name!r}")
