"""Where this process stands among the workers of a trial, and the few words that they exchange."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed, nn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """rank of `world` workers, and the device that this one computes on."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    def here(cls) -> Place:
        """This process's place: its local GPU where there is one; rank 0 of 1 unless torch.distributed is set up."""
        rank, world = 0, 1
        if distributed.is_available() and distributed.is_initialized():
            rank, world = distributed.get_rank(), distributed.get_world_size()
        return cls(rank, world, _device(rank))

    @property
    def leads(self) -> bool:
        """Whether this worker evaluates and writes checkpoints."""
        return self.rank == 0

    def rows(self, count: int) -> tuple[int, int]:
        """This worker's rows, from and up to, of a global batch of `count`."""
        return count * self.rank // self.world, count * (self.rank + 1) // self.world

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over the workers; itself when alone."""
        if self.world == 1:
            return model
        # Experts that no token chose have no gradient on some workers
        return nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)

    def from_leader(self, value: T) -> T:
        """The leader's `value`, on every worker; all must call it."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of `value` over the workers; all must call it."""
        if self.world > 1:
            distributed.all_reduce(value)
            value /= self.world
        return value


def _device(rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # Launchers set LOCAL_RANK; a worker that sees one GPU only has it as number 0
    local = int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count()
    return torch.device("cuda", local)
