"""Optimisers against steps computed by hand, and the weight average."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from workloads import build_task, list_tasks
from workloads.build import task_of
from workloads.config import TrainingConfig, TrialConfig
from workloads.errors import DataError
from workloads.optim import build_optimizer, decay_groups
from workloads.optim.ema import WeightAverage
from workloads.optim.grams import Grams
from workloads.optim.sophia import Sophia
from workloads.shell import SequenceModel


def step(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, gradient: list[float]) -> list[float]:
    parameter.grad = torch.tensor(gradient, dtype=parameter.dtype)
    optimizer.step()
    return parameter.tolist()


def test_grams_follows_two_steps_computed_by_hand():
    w = nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
    grams = Grams([w], lr=0.1, betas=(0.9, 0.99), eps=0.0, weight_decay=0.5)
    # First step: m̂ = g and v̂ = g², so the size is 1 whatever the gradient; 1 − 0.1·0.5·1 ∓ 0.1
    assert step(grams, w, [2.0, -3.0]) == pytest.approx([0.85, 1.05])
    # Second: m = 0.9·0.1·2 + 0.1·(−1) = 0.08, m̂ = 0.08/0.19; v = 0.99·0.01·4 + 0.01·1 = 0.0496, v̂ = 0.0496/0.0199.
    # m̂ is positive, but the gradient is negative: the weight goes up, by Adam's size
    size = (0.08 / 0.19) / math.sqrt(0.0496 / 0.0199)
    moved = step(grams, w, [-1.0, 0.0])
    assert moved[0] == pytest.approx(0.85 * 0.95 + 0.1 * size)
    # sign(0) = 0: only the decay moves it
    assert moved[1] == pytest.approx(1.05 * 0.95)


def test_sophia_follows_steps_computed_by_hand():
    w = nn.Parameter(torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64))
    sophia = Sophia([w], lr=0.1, betas=(0.5, 0.9), gamma=0.5, weight_decay=0.2)
    w.grad = torch.tensor([2.0, 0.1, 0.0], dtype=torch.float64)
    sophia.update_curvature(count=10)
    # h = 0.1 · 10 · ĝ² = [4, 0.01, 0]
    assert sophia.state[w]["curvature"].tolist() == pytest.approx([4.0, 0.01, 0.0])
    # m = 0.5 g = [0.5, −0.2, 0.3]; m / (0.5 h) = [0.25, −40 → −1, ∞ → 1]; decay 1 − 0.02
    assert step(sophia, w, [1.0, -0.4, 0.6]) == pytest.approx([0.98 - 0.025, 0.98 + 0.1, 0.98 - 0.1])
    # m = 0.5·0.5 + 0.5·(−2.5) = −1; −1 / 2 = −0.5
    assert step(sophia, w, [-2.5, 0.0, 0.0])[0] == pytest.approx(0.955 * 0.98 + 0.05)


def test_sophia_goes_down_a_badly_scaled_bowl_where_a_gradient_step_of_its_size_cannot():
    scales = torch.tensor([1e3, 1e-1])
    w = nn.Parameter(torch.ones(2))
    sophia = Sophia([w], lr=0.05, gamma=1.0)
    for i in range(200):
        if i % sophia.curvature_every == 0:
            # E[B ĝ²] of this bowl is its Hessian's diagonal
            w.grad = scales.sqrt()
            sophia.update_curvature(1)
        w.grad = scales * w.detach()
        sophia.step()
    assert w.abs().max() < 0.05


@pytest.mark.parametrize("name", list_tasks())
def test_every_task_draws_targets_of_the_kind_that_its_loss_takes(name: str):
    try:
        task = build_task(name)
        smoke = TrialConfig.parse(task.smoke())
    except DataError as error:
        pytest.skip(str(error))
    task = task_of(smoke)
    length = task.signature(smoke.training.sequence_length).sequence_length
    batch = task.batch(1, 0, 4, length)
    torch.manual_seed(0)
    output = SequenceModel(smoke.model, task.signature(length))(batch.inputs).logits
    drawn = task.sample_targets(output.detach(), batch.targets)
    assert drawn.shape == batch.targets.shape
    assert drawn.dtype == batch.targets.dtype
    assert task.weight(drawn) == task.weight(batch.targets)
    assert not torch.equal(drawn, batch.targets)
    task.loss(output, drawn).backward()


def test_adamw_is_fused_and_decays_matrices_alone():
    model = nn.Sequential(nn.Linear(3, 4), nn.RMSNorm(4))
    optimizer = build_optimizer(model, TrainingConfig(weight_decay=0.3))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["fused"]
    decay = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decay[p] for p in model.parameters()] == [0.3, 0.0, 0.0]


def test_a_matrix_can_be_kept_from_decay():
    model = nn.Linear(3, 4, bias=False)
    model.weight.no_weight_decay = True  # type: ignore[assignment]
    (group,) = decay_groups(model, 0.1)
    assert group["weight_decay"] == 0.0


def test_the_average_trails_the_weights_and_swaps_in_and_out():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = WeightAverage(model, decay=0.5)
    with torch.no_grad():
        model.weight.fill_(1.0)
    average.update()
    # decay = min(0.5, 2/11) in the first step
    with average.in_place():
        assert model.weight.item() == pytest.approx(1 - 2 / 11)
    assert model.weight.item() == 1.0
