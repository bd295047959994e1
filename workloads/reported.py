"""Which metrics a trial will report, known before it runs. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping

from workloads.config import TrialConfig

ALWAYS: Mapping[str, str] = {
    "val_loss": "minimize",
    "train_loss": "minimize",
    "grad_norm": "minimize",
    "tokens_per_s": "maximize",
    "params": "minimize",
    "active_params": "minimize",
    "train_flops_per_token": "minimize",
}


FAMILIES = ("aux/", "baseline/", "gate/", "health/", "length/", "memory/", "moe/")
"""First parts of the names of what models and tasks tell of themselves; which of it comes, hangs on the methods."""

CONSTANTS = ("lr", "inference_flops_per_token", "state_bytes", "data_checksum")


def may_report(name: str, config: TrialConfig) -> bool:
    """Whether a trial could report a metric of this name."""
    return name in reported_metrics(config) or name in CONSTANTS or name.startswith(FAMILIES)


def reported_metrics(config: TrialConfig) -> dict[str, str]:
    """Every metric that ranking or stopping may refer to, with its goal; the task's primary metric first."""
    task = type(config.task)
    return {task.metric: task.goal, **getattr(task, "metrics", {}), **ALWAYS}
