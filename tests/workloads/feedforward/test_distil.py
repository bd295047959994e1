"""Learners of an adaptive computation module, fitted to a trained layer."""

from __future__ import annotations

import pytest
import torch

from workloads import build_feedforward
from workloads.feedforward.distil import fit_gate, fit_learners, gate_labels, prefix_outputs
from workloads.slots import LayerContext

D, E = 8, 4


def batches(count: int, *, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 16, D, generator=generator) for _ in range(count)]


def test_prefixes_are_sums_whose_gradient_reaches_the_last_learner_alone():
    outputs = torch.randn(5, E, D, requires_grad=True)
    prefixes = prefix_outputs(outputs)
    torch.testing.assert_close(prefixes, outputs.cumsum(1))
    (slope,) = torch.autograd.grad(prefixes[:, 2].sum(), outputs)
    assert (slope[:, 2] == 1).all()
    assert slope.sum() == 5 * D


def test_labels_stop_where_another_learner_no_longer_helps():
    errors = torch.tensor([[8.0, 4.0, 2.0, 1.9, 0.5], [8.0, 7.9, 1.0, 0.5, 0.1], [16.0, 8.0, 4.0, 2.0, 1.0]])
    assert gate_labels(errors, 1.25).tolist() == [2, 0, 4]


def test_learners_approach_their_teacher_and_the_gate_learns_when_to_stop():
    torch.manual_seed(0)
    teacher = build_feedforward("dense", D, hidden=16)
    student = build_feedforward("moe", D, num_experts=E, expert_hidden=8, router="acm")
    losses = fit_learners(student, teacher, batches(150), lr=1e-2)
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])
    gate = fit_gate(student, teacher, batches(100), lr=3e-2)
    assert sum(gate[-10:]) < 0.95 * sum(gate[:10])
    student.eval()
    (x,), where = batches(1, seed=9), LayerContext()
    # Better than no layer at all, at the compute that the gate chose
    error = (student(x, where) - teacher(x)).square().mean()
    assert error < 0.5 * teacher(x).square().mean()
    assert 0 < where.stats["0/compute"] <= 1


def test_only_its_own_router_has_such_a_gate():
    torch.manual_seed(0)
    layer = build_feedforward("moe", D, num_experts=E)
    with pytest.raises(ValueError, match="router 'acm', got TopK"):
        fit_gate(layer, build_feedforward("dense", D), batches(1))
