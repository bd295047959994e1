"""A sweep's `resources` as Ray knows them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.train import ScalingConfig

from orchestrator.errors import BadInput
from orchestrator.places import POOL_LABEL, POOL_RESOURCE, pool_of
from orchestrator.spec.words import bytes_of

NODE_LABEL = "ray.io/node-id"
"""Ray gives every node a label of its own id."""

ON_HEAD = "node:__internal_head__"
"""Ray gives the head node one of this. Jobs that ask for nothing have their drivers there."""

LEAST = 0.0001
"""Of a custom resource: Ray's smallest amount."""


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

    def scaling(self, excluded: Collection[str] = (), nodes: Sequence[Mapping[str, Any]] = ()) -> ScalingConfig:
        """As Ray Train takes them.

        excluded: ids of nodes that no worker may run on. nodes: those that live, as `ray.nodes` tells of them: the ones
        of named pools are left to those that name them.
        """
        amounts = {"CPU": self.cpu, "GPU": self.gpu, "memory": self.memory}
        selectors, pool = dict(self.selectors), self.selectors.get(POOL_LABEL, "")
        labelled = {node["Labels"][POOL_LABEL] for node in nodes if POOL_LABEL in (node.get("Labels") or {})}
        offering = {
            node["NodeID"]: found
            for node in nodes
            if (found := pool_of(node.get("Labels") or {}, node["Resources"])) and found not in labelled
        }
        if pool in offering.values():
            del selectors[POOL_LABEL]
            amounts[f"{POOL_RESOURCE}{pool}"] = LEAST
        elif labelled:
            selectors.setdefault(POOL_LABEL, f"!in({', '.join(sorted(labelled))})")
        away = {*excluded, *(node_id for node_id, found in offering.items() if found != pool)}
        if away:
            selectors.setdefault(NODE_LABEL, f"!in({', '.join(sorted(away))})")
        return ScalingConfig(
            num_workers=self.workers,
            use_gpu=self.gpu > 0,
            resources_per_worker={name: value for name, value in amounts.items() if value},
            accelerator_type=self.accelerator or None,
            label_selector=selectors or None,
        )

    @property
    def threads(self) -> int:
        """Threads that a worker's arithmetic may use."""
        return max(1, int(self.cpu))
