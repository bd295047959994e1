"""`python -m workloads.fuse CHECKPOINT CHECKPOINT ...`: fuse trained specialists under one token-level gate.

Stage 1 trains the gate over frozen specialists, stage 2 (`--joint-steps`) everything, both on batches that take equally
from the specialists' own tasks (UltraFuser, arXiv:2403.08281, sec. 3.2-3.3). Prints each task's metric for each
specialist and for the fused model, and the gate's mean weights.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from workloads import seeding
from workloads.errors import WorkloadError
from workloads.evaluate import evaluate
from workloads.fusion import FusedModel
from workloads.tasks.base import Batch
from workloads.trained import Trained, trained


@dataclass(frozen=True, slots=True)
class Fused:
    """What fusing gave, tasks and specialists in the order of the checkpoints.

    alone: [specialist][task], the task's metric of one specialist; together: [task], that of the fused model.
    weights: [task][specialist], the mean weight that the gate gives on a batch of the task.
    losses: of each training step, the mean over the tasks.
    """

    metrics: tuple[str, ...]
    alone: tuple[tuple[float, ...], ...]
    together: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    losses: tuple[float, ...]


def fuse(
    specialists: Sequence[Trained], *, steps: int = 400, joint_steps: int = 0, lr: float = 1e-2, seed: int = 0
) -> Fused:
    """Train the gate over copies of the specialists, and compare.

    Args:
        steps: of the gate alone. joint_steps: of everything, at a tenth of `lr`.

    Raises:
        ValueError: specialists of different widths or vocabularies.
    """
    alone = tuple(tuple(_metric(one.model, each) for each in specialists) for one in specialists)
    seeding.seed_everything(seed, "fuse")
    model = FusedModel([copy.deepcopy(one.model) for one in specialists])
    losses = list(_learn(model, specialists, steps, lr, seed))
    model.thaw()
    losses += _learn(model, specialists, joint_steps, lr / 10, seed + 1)
    model.eval()
    return Fused(
        metrics=tuple(each.task.metric for each in specialists),
        alone=alone,
        together=tuple(_metric(model, each) for each in specialists),
        weights=tuple(_weights(model, each, seed) for each in specialists),
        losses=tuple(losses),
    )


def _learn(model: FusedModel, domains: Sequence[Trained], steps: int, lr: float, seed: int) -> Iterator[float]:
    """Train what takes a gradient; yields the loss of each step."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for step in range(1, steps + 1):
        losses = []
        for each in domains:
            batch = _batch(each, step, seed)
            losses.append(each.task.loss(model(batch.inputs).logits, batch.targets))
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield float(loss.detach())


def _batch(domain: Trained, step: int, seed: int) -> Batch:
    training = domain.trial.training
    return domain.task.batch(step, seed, training.batch_size, training.sequence_length)


def _metric(model: nn.Module, domain: Trained) -> float:
    return evaluate(model, domain.task, domain.trial.training)[domain.task.metric]


@torch.no_grad()
def _weights(model: FusedModel, domain: Trained, seed: int) -> tuple[float, ...]:
    stats = model(_batch(domain, 1, seed).inputs).stats
    return tuple(float(stats[f"gate/{number}"]) for number in range(len(model.specialists)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuse and print. Returns the exit status: 0, or 2 for a wrong request."""
    request = _parser().parse_args(arguments)
    try:
        specialists = [trained(path) for path in request.checkpoint]
        found = fuse(
            specialists, steps=request.steps, joint_steps=request.joint_steps, lr=request.lr, seed=request.seed
        )
    except (ValueError, WorkloadError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print("\n".join(_lines(specialists, found)))  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workloads.fuse", description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="+", help="a specialist's checkpoint or checkpoint directory")
    parser.add_argument("--steps", type=int, default=400, help="of the gate alone (default: 400)")
    parser.add_argument("--joint-steps", type=int, default=0, help="of everything, afterwards (default: 0)")
    parser.add_argument("--lr", type=float, default=1e-2, help="of the gate; a tenth of it afterwards (default: 0.01)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _lines(specialists: Sequence[Trained], found: Fused) -> Iterator[str]:
    for number, one in enumerate(specialists):
        yield f"specialist {number}: {one.path}"
    yield f"training loss {found.losses[0]:.4f} -> {found.losses[-1]:.4f}" if found.losses else "no training"
    for task, metric in enumerate(found.metrics):
        alone = ", ".join(f"specialist {number} {row[task]:.4f}" for number, row in enumerate(found.alone))
        weights = ", ".join(f"{weight:.2f}" for weight in found.weights[task])
        yield f"task of specialist {task}, {metric}: {alone}; fused {found.together[task]:.4f}; gate {weights}"


if __name__ == "__main__":
    raise SystemExit(main())
