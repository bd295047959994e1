"""Optimisers and the learning rate: which parameters are trained and decay, which rule steps them, how fast when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from workloads.config import TrainingConfig
from workloads.errors import ConfigError, Problem
from workloads.optim.grams import Grams
from workloads.optim.sophia import Sophia

BETAS = (0.9, 0.95)
FINAL_FRACTION = 0.1
"""Where cosine and trapezoid end, as a share of the peak."""
COOLDOWN = 0.2
"""Last share of the steps over which the trapezoid falls."""


def train_only(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze every parameter whose name fits none of `patterns`, shell patterns as `*.up`; no patterns freeze nothing.

    Raises:
        ConfigError: a pattern that no parameter fits.
    """
    if not patterns:
        return
    names = [name for name, _ in model.named_parameters()]
    for i, pattern in enumerate(patterns):
        if not any(fnmatchcase(name, pattern) for name in names):
            problem = f"no parameter of the model fits {pattern!r}."
            hint = f"Its parameters are called {names[0]}, ..., {names[-1]}."
            raise ConfigError([Problem(("training", "trainable", i), problem, hint)])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))


def build_optimizer(model: nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser of a trial, at its peak learning rate."""
    groups = decay_groups(model, training.weight_decay)
    if training.optimizer == "sophia":
        return Sophia(groups, lr=training.lr)
    if training.optimizer == "grams":
        return Grams(groups, lr=training.lr, betas=BETAS)
    return torch.optim.AdamW(groups, lr=training.lr, betas=BETAS, fused=True)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameters in two groups: matrices decay; vectors, and those marked `no_weight_decay = True`, do not.

    Gates' biases, norms' scales and recurrences' time constants have a meaning at which zero is no neutral point.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            kept = parameter.ndim < 2 or getattr(parameter, "no_weight_decay", False)
            (plain if kept else decayed).append(parameter)
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def learning_rate(step: int, training: TrainingConfig) -> float:
    """The learning rate of step 1, 2, ... `training.steps`: a pure function, so a schedule has no state to save.

    Linear warm-up to the peak; then constant; or a cosine down to a tenth of the peak; or "trapezoid": constant, and
    linearly down to a tenth over the last fifth of the steps.
    """
    if step <= training.warmup_steps:
        return training.lr * step / training.warmup_steps
    if training.schedule == "constant":
        return training.lr
    if training.schedule == "cosine":
        done = (step - training.warmup_steps) / max(1, training.steps - training.warmup_steps)
        fall = 0.5 * (1 - math.cos(math.pi * min(done, 1.0)))
    else:
        start = training.steps * (1 - COOLDOWN)
        fall = min(max(0.0, (step - start) / max(1.0, training.steps - start)), 1.0)
    return training.lr * (1 - (1 - FINAL_FRACTION) * fall)
