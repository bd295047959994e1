"""Records how many assignments each expert of each mixture layer gets, batch by batch. Shapes: E experts, B batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from workloads.feedforward.moe import MoE
from workloads.slots import Routing


class LoadRecord:
    """Counts of assignments by layer name, one row a forward pass."""

    def __init__(self) -> None:
        self.counts: dict[str, list[Tensor]] = {}

    def loads(self, layer: str) -> Tensor:
        """Assignments [E, B], float32 on the CPU, of one layer.

        Raises:
            KeyError: no pass of that layer was recorded.
        """
        return torch.stack(self.counts[layer], dim=1)

    def trace(self, layer: str) -> list[list[int]]:
        """The experts that each batch used, in the order of their numbers, which is the order they run in."""
        return [counts.nonzero().flatten().tolist() for counts in self.counts[layer]]


@contextmanager
def recording(model: nn.Module) -> Iterator[LoadRecord]:
    """Record the routings of every mixture layer of `model` while the context is open.

    with recording(model) as record:
        model(batch)
    record.loads("blocks.0.feedforward")
    """
    record = LoadRecord()
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, MoE)]
    handles = [layer.router.register_forward_hook(_hook(record, name, layer.num_experts)) for name, layer in layers]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


class _hook:
    def __init__(self, record: LoadRecord, name: str, num_experts: int) -> None:
        self.record, self.name, self.num_experts = record, name, num_experts

    def __call__(self, _router: nn.Module, _inputs: object, routing: Routing) -> None:
        used = routing.expert[routing.weight.detach() != 0]
        counts = torch.bincount(used, minlength=self.num_experts).float().cpu()
        self.record.counts.setdefault(self.name, []).append(counts)
