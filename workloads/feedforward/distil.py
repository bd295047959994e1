"""Fits the learners of an adaptive computation module to a trained layer, before it is trained end to end.

Phases 1 and 2 of arXiv:2312.10193, sec. 3.2: learners fit what the ones before them left, then the gate is taught
where another learner no longer helps. `workloads.distil` does it to whole models.
Shapes: N tokens, D width, E learners.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from workloads.feedforward.moe import MoE
from workloads.routers.depth import ACM
from workloads.slots import Feedforward


def prefix_outputs(outputs: Tensor) -> Tensor:
    """s_n = h_n + sg(s_{n−1}), n = 1..E, so that each learner fits a residual. Args: [N, E, D]. Returns the same."""
    before = F.pad(outputs.cumsum(1)[:, :-1], (0, 0, 1, 0)).detach()
    return outputs + before


def gate_labels(errors: Tensor, factor: float) -> Tensor:
    """The smallest n at which one more learner divides the error by less than `factor`; E where none is such.

    Args: errors [N, E + 1], the norm of the teacher's output less the sum of the first n learners. Returns [N] int64.
    """
    helps_little = errors[:, :-1] / errors[:, 1:].clamp_min(torch.finfo(errors.dtype).tiny) < factor
    last = errors.shape[1] - 1
    return torch.where(helps_little.any(1), helps_little.long().argmax(1), last)


def fit_learners(student: MoE, teacher: Feedforward, batches: Iterable[Tensor], *, lr: float = 1e-3) -> list[float]:
    """Phase 1: train the learners on the mean over n of MSE(s_n, teacher). Args: batches of [B, T, D].

    Returns the loss of each batch.
    """
    optimizer = torch.optim.Adam(student.experts.parameters(), lr=lr)
    losses = []
    for x in batches:
        target = _taught(teacher, x)
        outputs, _ = student.each(x.flatten(0, 1))
        loss = (prefix_outputs(outputs) - target[:, None]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def fit_gate(
    student: MoE, teacher: Feedforward, batches: Iterable[Tensor], *, factor: float = 1.25, lr: float = 1e-3
) -> list[float]:
    """Phase 2: teach the gate the labels of `gate_labels` by their negative log-likelihood.

    Raises:
        ValueError: the student's router is not `acm`.
    """
    router = student.router
    if not isinstance(router, ACM):
        raise ValueError(f"fit_gate needs a mixture behind the router 'acm', got {type(router).__name__}")
    optimizer = torch.optim.Adam(router.parameters(), lr=lr)
    losses = []
    for x in batches:
        tokens, target = x.flatten(0, 1), _taught(teacher, x)
        with torch.no_grad():
            prefixes = F.pad(student.each(tokens)[0].cumsum(1), (0, 0, 1, 0))
            labels = gate_labels((prefixes - target[:, None]).norm(dim=-1), factor)
        loss = F.cross_entropy(router.gate(tokens), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def _taught(teacher: Feedforward, x: Tensor) -> Tensor:
    result: Tensor = teacher(x)
    return result.flatten(0, 1)
