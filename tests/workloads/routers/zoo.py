"""What the router tests share: building by name, dense views of plans, a short training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from workloads import build_feedforward, build_router, list_routers
from workloads.config import ModelConfig
from workloads.shell import SequenceModel
from workloads.slots import LayerContext, Router, Routing, for_each_router
from workloads.tasks.base import Signature

NAMES = list_routers()
D, BATCH, TIME = 16, 3, 12
N = BATCH * TIME


def router(name: str, num_experts: int = 5, *, train: bool = True, seed: int = 0, **options: Any) -> Router:
    """A freshly seeded router whose gates have left their start, so that choices differ."""
    torch.manual_seed(seed)
    built = build_router(name, D, num_experts, **options)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return built.train(train)


def tokens(n: int = N, *, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Hidden states [n, D]."""
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def context(batch: int = BATCH, time: int = TIME, *, seed: int = 2) -> LayerContext:
    """A context with ids."""
    ids = torch.randint(0, 256, (batch, time), generator=torch.Generator().manual_seed(seed))
    return LayerContext(tokens=ids, shape=(batch, time))


def route(built: Router, x: Tensor, where: LayerContext | None = None, *, seed: int = 3) -> Routing:
    """One call with the random numbers of `seed`."""
    torch.manual_seed(seed)
    return built(x, where)


def matrix(routing: Routing, n: int, num_experts: int) -> Tensor:
    """The plan as a dense matrix of combine weights [n, E]."""
    flat = torch.zeros(n * num_experts, dtype=routing.weight.dtype)
    return flat.index_add(0, routing.token * num_experts + routing.expert, routing.weight).view(n, num_experts)


def moe(name: str, num_experts: int = 5, *, seed: int = 0, **options: Any) -> Any:
    """A mixture layer behind the router `name`."""
    torch.manual_seed(seed)
    return build_feedforward("moe", D, num_experts=num_experts, expert_hidden=8, router={"name": name, **options})


def train(
    name: str,
    steps: int,
    *,
    num_experts: int = 4,
    layers: int = 1,
    lr: float = 1e-2,
    watch: Callable[[SequenceModel, LayerContext], Any] = lambda model, where: where,
    **options: Any,
) -> Iterator[Any]:
    """Train a byte model of `layers` mixtures on a fixed text for some steps, as the trainer does; yields `watch`."""
    torch.manual_seed(0)
    feedforward = {"name": "moe", "num_experts": num_experts, "expert_hidden": 16, "router": {"name": name, **options}}
    config = ModelConfig(d_model=D, n_layers=layers, mixer={"name": "mingru"}, feedforward=feedforward)
    model = SequenceModel(config, Signature(vocab_size=64, outputs=64, sequence_length=TIME))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    successor = torch.randperm(64, generator=generator)
    for step in range(steps):
        ids = torch.randint(0, 64, (4, 1), generator=generator)
        while ids.shape[1] <= TIME:
            ids = torch.cat([ids, successor[ids[:, -1:]]], dim=1)
        for_each_router(model, lambda part, step=step: part.set_progress(step, steps))
        where = LayerContext()
        output = model(ids[:, :-1], context=where)
        loss = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        (loss + sum(output.losses.values())).backward()
        optimizer.step()
        for_each_router(model, lambda part: part.after_step())
        where.stats["loss"] = loss.detach()
        yield watch(model, where)
