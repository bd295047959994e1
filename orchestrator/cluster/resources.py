"""A sweep's `resources` as Ray knows them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.train import ScalingConfig

from orchestrator.errors import BadInput
from orchestrator.places import POOL_LABEL
from orchestrator.spec.words import bytes_of

NODE_LABEL = "ray.io/node-id"
"""Ray gives every node a label of its own id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResources:
    """What one trial takes: `workers` processes with `cpu` cores and `gpu` GPUs each.

    memory: bytes of each; 0 for no claim. accelerator: kind of GPU; "" for any. selectors: Ray's, by label of a node.
    """

    workers: int = 1
    cpu: float = 1
    gpu: float = 0
    memory: int = 0
    accelerator: str = ""
    selectors: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> TrialResources:
        """From a sweep's spec.

        Raises:
            BadInput: numbers that no worker group can have.
        """
        words = spec.get("resources") or {}
        found = cls(
            **{name: words[name] for name in ("workers", "cpu", "gpu") if name in words},
            memory=bytes_of(words.get("memory") or 0),
            accelerator=words.get("accelerator") or "",
            selectors=dict(words.get("labels") or {}) | ({POOL_LABEL: words["pool"]} if words.get("pool") else {}),
        )
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

    def scaling(self, excluded: Collection[str] = (), named_pools: Collection[str] = ()) -> ScalingConfig:
        """As Ray Train takes them.

        excluded: ids of nodes that no worker may run on. named_pools: left to those that name them.
        """
        amounts = (("CPU", self.cpu), ("GPU", self.gpu), ("memory", self.memory))
        selectors = dict(self.selectors)
        if named_pools:
            selectors.setdefault(POOL_LABEL, f"!in({', '.join(sorted(named_pools))})")
        if excluded:
            selectors.setdefault(NODE_LABEL, f"!in({', '.join(sorted(excluded))})")
        return ScalingConfig(
            num_workers=self.workers,
            use_gpu=self.gpu > 0,
            resources_per_worker={name: value for name, value in amounts if value},
            accelerator_type=self.accelerator or None,
            label_selector=selectors or None,
        )

    @property
    def threads(self) -> int:
        """Threads that a worker's arithmetic may use."""
        return max(1, int(self.cpu))
