"""`python -m workloads.distil CHECKPOINT`: turn a trained model's dense layers into adaptive computation modules.

Phases 1 and 2 fit learners and gates to each dense layer on that layer's own inputs, phase 3 trains the whole model on
its task towards a target of compute (arXiv:2312.10193, sec. 3.2-3.3). Prints the task's metric of the dense model, of
every fixed number of learners, and of the gated model with the share of learners that it runs.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from workloads import seeding
from workloads.build import build_feedforward
from workloads.errors import WorkloadError
from workloads.evaluate import evaluate
from workloads.feedforward.dense import Dense
from workloads.feedforward.distil import fit_gate, fit_learners
from workloads.feedforward.moe import MoE
from workloads.routers.depth import ACM
from workloads.shell import Block, SequenceModel
from workloads.slots import LayerContext
from workloads.tasks.base import Batch
from workloads.trained import Trained, trained


@dataclass(frozen=True, slots=True)
class Distilled:
    """What distilling gave, in the task's metric.

    fixed: with 1, 2, ... learners for every token. gated: after phase 2; tuned: after phase 3; each with the mean
    share of the learners that ran.
    """

    metric: str
    dense: float
    fixed: tuple[float, ...]
    gated: tuple[float, float]
    tuned: tuple[float, float]


def distil(
    subject: Trained, *, learners: int = 4, steps: int = 200, joint_steps: int = 200, target: float = 0.5, seed: int = 0
) -> Distilled:
    """Distil a copy of a trained model, whose learners together are as wide as its dense layers.

    Args: steps: of each of phases 1 and 2. joint_steps: of phase 3, with the gates' budget at `target`.

    Raises:
        ValueError: a model without dense layers.
    """
    seeding.seed_everything(seed, "distil")
    model = copy.deepcopy(subject.model)
    teachers = {
        layer: block.feedforward
        for layer, block in enumerate(_blocks(subject.model))
        if isinstance(block.feedforward, Dense)
    }
    if not teachers:
        raise ValueError(f"{subject.path} has no dense feed-forward to distil; give the checkpoint of a dense model.")
    for layer, teacher in teachers.items():
        student = _student(subject, layer, teacher, learners, target)
        fit_learners(student, teacher, _inputs(subject, layer, steps, seed))
        fit_gate(student, teacher, _inputs(subject, layer, steps, seed))
        _blocks(model)[layer].feedforward = student
    fixed = tuple(_measured(subject, _of_fixed_size(model, number))[0] for number in range(1, learners + 1))
    gated = _measured(subject, model)
    _tune(model, subject, joint_steps, seed)
    dense = _measured(subject, subject.model)[0]
    return Distilled(subject.task.metric, dense, fixed, gated, _measured(subject, model))


def _blocks(model: SequenceModel) -> list[Block]:
    return [cast(Block, block) for block in model.blocks]


def _student(subject: Trained, layer: int, dense: Dense, learners: int, target: float) -> MoE:
    chosen = subject.trial.model.feedforward
    chosen = chosen[layer % len(chosen)] if isinstance(chosen, list) else chosen
    built = build_feedforward(
        "moe",
        dense.d_model,
        num_experts=learners,
        expert_hidden=-(-dense.hidden // learners),
        activation=asdict(chosen.activation),
        router={"name": "acm", "target": target},
    )
    assert isinstance(built, MoE)
    return built


def _batch(subject: Trained, step: int, seed: int) -> Batch:
    training = subject.trial.training
    return subject.task.batch(step, seed, training.batch_size, training.sequence_length)


def _inputs(subject: Trained, layer: int, steps: int, seed: int) -> Iterator[Tensor]:
    """What the trained model's layer reads on training batches, [B, T, D]."""
    seen: list[Tensor] = []
    feedforward = _blocks(subject.model)[layer].feedforward
    handle = feedforward.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        for step in range(1, steps + 1):
            with torch.no_grad():
                subject.model(_batch(subject, step, seed).inputs)
            yield seen.pop()
    finally:
        handle.remove()


def _of_fixed_size(model: SequenceModel, number: int) -> SequenceModel:
    """A copy in which every gate says `number`."""
    fixed = copy.deepcopy(model)
    for gate in (module.gate for module in fixed.modules() if isinstance(module, ACM)):
        last = cast(nn.Linear, gate[-1])
        last.weight.data.zero_()
        last.bias.data.copy_(torch.nn.functional.one_hot(torch.tensor(number), len(last.bias)))
    return fixed


def _tune(model: SequenceModel, subject: Trained, steps: int, seed: int) -> None:
    """Phase 3: the task's loss and the gates' own, for every parameter."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for step in range(1, steps + 1):
        batch = _batch(subject, step, seed + 1)
        output = model(batch.inputs)
        loss = subject.task.loss(output.logits, batch.targets) + sum(output.losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


@torch.no_grad()
def _measured(subject: Trained, model: SequenceModel) -> tuple[float, float]:
    """The task's metric, and the share of the learners that run on one batch; 1 where there are none."""
    metric = evaluate(model, subject.task, subject.trial.training)[subject.task.metric]
    model.eval()
    where = LayerContext()
    model(_batch(subject, 1, 0).inputs, context=where)
    shares = [float(value) for name, value in where.stats.items() if name.endswith("/compute")]
    return metric, sum(shares) / len(shares) if shares else 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Distil and print. Returns the exit status: 0, or 2 for a wrong request."""
    request = _parser().parse_args(arguments)
    try:
        found = distil(
            trained(request.checkpoint),
            learners=request.learners,
            steps=request.steps,
            joint_steps=request.joint_steps,
            target=request.target,
            seed=request.seed,
        )
    except (ValueError, WorkloadError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    fixed = ", ".join(f"{number}: {value:.4f}" for number, value in enumerate(found.fixed, start=1))
    print(f"{found.metric}: dense {found.dense:.4f}; by number of learners {fixed}")  # noqa: T201
    for name, (value, share) in (("gated", found.gated), ("tuned", found.tuned)):
        print(f"{name}: {value:.4f} with {share:.0%} of the learners")  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workloads.distil", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a dense model's checkpoint or checkpoint directory")
    parser.add_argument("--learners", type=int, default=4, help="learners a layer (default: 4)")
    parser.add_argument("--target", type=float, default=0.5, help="share of them to run (default: 0.5)")
    parser.add_argument("--steps", type=int, default=200, help="of each of phases 1 and 2 (default: 200)")
    parser.add_argument("--joint-steps", type=int, default=200, help="of phase 3 (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
