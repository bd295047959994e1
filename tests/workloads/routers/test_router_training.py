"""Every router learns, and what sets it apart from the others really moves in a short training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from tests.workloads.routers.zoo import NAMES, train

Row = dict[str, float]


@dataclass(frozen=True)
class Moves:
    """What moves: `figure` of the first and the last steps, compared by `expected`."""

    figure: str
    expected: Callable[[float, float], bool]
    options: dict[str, Any] = field(default_factory=dict)


def falls(first: float, last: float) -> bool:
    return last < 0.97 * first


def rises(first: float, last: float) -> bool:
    return last > 1.03 * first and last > 1e-6


def nonzero(first: float, last: float) -> bool:
    return last > 1e-3


def changes(first: float, last: float) -> bool:
    return abs(last - first) > 0.01 * abs(first)


def inside(first: float, last: float) -> bool:
    return 0.02 < last < 0.98


EXPECTED = {
    "acm": Moves("compute", falls, {"target": 0.0, "budget_weight": 10.0}),
    "activation_dense_to_sparse": Moves("activation_std", rises),
    "adaptive_gating": Moves("pair_frac", falls, {"threshold": 0.05}),
    "aw_moe": Moves("aux:contrast", falls, {"contrast_weight": 1.0}),
    "base": Moves("moved_frac", inside),
    "cmr": Moves("gate_mean", rises, {"budget_weight": 10.0}),
    "comet": Moves("permutation_hardness", rises, {"search": 0.5}),
    "cosine": Moves("temperature", changes),
    "deepseek_moe": Moves("margin", rises),
    "dense_to_sparse": Moves("experts_per_token", falls, {"diversify": 0.0}),
    "dselect_k": Moves("binary_frac", rises, {"entropy_weight": 1.0, "gamma": 0.1}),
    "eom": Moves("masked_frac", inside, {"p": 0.3}),
    "expert_choice": Moves("missed_frac", inside, {"capacity_factor": 1.0}),
    "fom": Moves("masked_frac", inside, {"p": 0.3}),
    "glam": Moves("margin", rises),
    "grkan": Moves("spline_share", rises),
    "gshard": Moves("second_frac", falls),
    "gumbel": Moves("entropy_norm", falls),
    "gw_moe": Moves("broadcast_frac", falls, {"slots": 0, "threshold": 0.9, "balance_weight": 0.0}),
    "hash": Moves("util_max", falls, {"table": "balanced", "counting": 0.3}),
    "hypermoe": Moves("adapter_rms", rises),
    "loss_free": Moves("bias_spread", rises),
    "mixture_of_depths": Moves("predictor_accuracy", rises, {"capacity": 0.25, "predictor_weight": 1.0}),
    "noisy_topk": Moves("noise_std", changes),
    "pre_gated": Moves("1:chosen_ahead", nonzero),
    "rmoe": Moves("router_state_rms", changes),
    "shared_experts_across_layers": Moves("margin", rises),
    "sma": Moves("active_frac", inside),
    "sparsemixer": Moves("sampled_frac", falls),
    "switch": Moves("margin", rises, {"balance_weight": 0.001}),
    "temperature_dense_to_sparse": Moves("temperature", falls, {"mode": "annealed"}),
    "token_fusion": Moves("gate_peak", rises),
    "topk": Moves("margin", rises),
}


def figures(model: Any, where: Any) -> Row:
    losses = {f"aux:{name}": float(value.detach()) for name, value in where.losses.items()}
    row = {name: float(value) for name, value in where.stats.items()} | losses
    plain = {name.replace("0/", "", 1): value for name, value in row.items() if "0/" in name}
    return plain | {name.replace("1/", "1:", 1): value for name, value in row.items() if name.startswith("1/")} | row


def mean(rows: list[Row], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


@pytest.mark.parametrize("name", NAMES)
def test_what_sets_it_apart_moves(name):
    moves = EXPECTED[name]
    layers = 2 if name == "pre_gated" else 1
    rows = list(train(name, 60, layers=layers, watch=figures, **moves.options))
    first, last = mean(rows[:5], moves.figure), mean(rows[-5:], moves.figure)
    assert mean(rows[-5:], "loss") < 0.9 * mean(rows[:5], "loss")
    assert moves.expected(first, last), f"{moves.figure}: {first:.4g} -> {last:.4g}"


def test_every_router_has_something_that_sets_it_apart():
    assert set(EXPECTED) == set(NAMES)


def test_the_bias_balances_the_load_that_top_k_without_a_loss_does_not():
    def load(name: str, **options: Any) -> float:
        rows = list(train(name, 150, num_experts=8, watch=figures, **options))
        return mean(rows[-20:], "cv")

    free = load("loss_free", update_rate=0.01)
    assert free < 0.7 * load("loss_free", update_rate=0.0)


def test_the_balance_loss_balances():
    def load(weight: float) -> float:
        return mean(list(train("topk", 120, num_experts=8, watch=figures, balance_weight=weight))[-20:], "cv")

    assert load(0.1) < 0.7 * load(0.0)


def test_a_shorter_training_is_a_prefix_of_nothing_random():
    """The same seed gives the same training, whatever the router draws."""
    runs = [torch.tensor([row["loss"] for row in train("sparsemixer", 5, watch=figures)]) for _ in range(2)]
    assert torch.equal(*runs)
