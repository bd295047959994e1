"""A sweep's `resources` as Ray knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.train import ScalingConfig

from orchestrator.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResources:
    """What one trial takes: `workers` processes with `cpu` cores and `gpu` GPUs each."""

    workers: int = 1
    cpu: float = 1
    gpu: float = 0

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> TrialResources:
        """From a sweep's spec.

        Raises:
            BadInput: numbers that no worker group can have.
        """
        words = spec.get("resources") or {}
        found = cls(**{name: words[name] for name in ("workers", "cpu", "gpu") if name in words})
        if found.workers < 1:
            raise BadInput(f"resources.workers is {found.workers}, expected 1 or more.")
        if found.cpu < 0 or found.gpu < 0 or found.cpu + found.gpu == 0:
            raise BadInput(
                f"resources: cpu {found.cpu:g}, gpu {found.gpu:g}; expected none below 0, and one of them above."
            )
        if found.gpu > 1 and found.gpu != int(found.gpu):
            raise BadInput(f"resources.gpu is {found.gpu:g}; a worker has a part of one GPU or a whole number of them.")
        if found.workers > 1 and 0 < found.gpu < 1:
            raise BadInput(
                f"resources: {found.workers} workers with {found.gpu:g} GPU each; workers that share a GPU cannot talk "
                "over NCCL. Give each a whole GPU, or use one worker."
            )
        return found

    def scaling(self) -> ScalingConfig:
        """As Ray Train takes them."""
        per_worker = {name: value for name, value in (("CPU", self.cpu), ("GPU", self.gpu)) if value}
        return ScalingConfig(num_workers=self.workers, use_gpu=self.gpu > 0, resources_per_worker=per_worker)

    @property
    def threads(self) -> int:
        """Threads that a worker's arithmetic may use."""
        return max(1, int(self.cpu))
