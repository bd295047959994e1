"""Health columns of a real model, and the collapse detector's hits and false alarms."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from workloads import build_model, build_task, seeding, train
from workloads.collapse import KINDS, CollapseDetector
from workloads.diagnostics import Probe, first_choice
from workloads.feedforward.moe import MoE
from workloads.shell import SequenceModel
from workloads.slots import Routing

MODEL = {
    "d_model": 16,
    "n_layers": 2,
    "mixer": ["gru", "rg_lru"],
    "feedforward": {"name": "moe", "num_experts": 4, "expert_hidden": 8, "router": {"name": "topk"}},
}


def a_probe(**model: Any) -> tuple[Probe, SequenceModel]:
    seeding.seed_everything(0)
    config = {"model": MODEL | model, "training": {"sequence_length": 64}}
    return Probe(build_task("bytes_lm"), 16, 64), build_model(config)


def mixtures(model: SequenceModel) -> list[MoE]:
    return [module for module in model.modules() if isinstance(module, MoE)]


def test_a_model_reports_the_columns_of_the_parts_that_it_has():
    probe, model = a_probe()
    columns = probe.report(model, 1) | probe.report(model, 2)
    moe = {"util_min", "util_max", "cv", "dead_frac", "entropy_norm", "margin", "drop_frac", "churn", "overlap"}
    gates = {f"gate/{name}/{layer}" for name in ("mean", "sat_low", "sat_high") for layer in (0, 1)}
    memory = {f"memory/{name}/{layer}" for name in ("half_life", "state_norm") for layer in (0, 1)}
    lags = {f"memory/grad_lag/{lag}" for lag in (1, 4, 16)}
    assert {f"moe/{name}" for name in moe} | gates | memory | lags <= columns.keys()
    assert all(math.isfinite(value) for value in columns.values())


def test_a_dense_attention_model_reports_no_routing_and_no_gates():
    probe, model = a_probe(mixer="attention", feedforward="dense")
    assert not [name for name in probe.report(model, 1) if name.startswith(("moe/", "gate/", "health/"))]


def test_looking_changes_nothing():
    probe, model = a_probe()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    first, again = probe.report(model, 1), probe.report(model, 2)
    assert again == first | {"moe/churn": 0.0}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_churn_is_the_share_of_tokens_whose_first_expert_changed():
    probe, model = a_probe(n_layers=1, mixer="gru")
    probe.report(model, 1)
    gate = mixtures(model)[0].router.gate.weight  # type: ignore[union-attr]
    with torch.no_grad():
        gate.neg_()
    # The largest of the old logits is the smallest of the new: with 4 experts no token keeps its first
    assert probe.report(model, 2)["moe/churn"] == 1.0


def test_shared_experts_are_nobodys_choice_and_stand_in_no_load():
    router = {"name": "deepseek_moe", "shared": 1, "k": 1}
    moe = {"name": "moe", "num_experts": 5, "expert_hidden": 8, "router": router}
    probe, model = a_probe(n_layers=1, mixer="gru", feedforward=moe)
    probe.report(model, 1)
    tokens = probe.inputs.numel()
    assert len(probe.history[-1].layers[0].loads) == 4
    assert sum(probe.history[-1].layers[0].loads) == tokens
    gate = mixtures(model)[0].router.gate.weight  # type: ignore[union-attr]
    with torch.no_grad():
        gate.neg_()
    assert probe.report(model, 2)["moe/churn"] == 1.0


def test_overlap_tells_copies_from_independent_experts():
    probe, model = a_probe(n_layers=1, mixer="gru")
    assert abs(probe.report(model, 1)["moe/overlap"]) < 0.1
    up = mixtures(model)[0].experts.up
    with torch.no_grad():
        up.copy_(up[:1].expand_as(up))
    assert probe.report(model, 2)["moe/overlap"] == pytest.approx(1.0, rel=1e-5)


def test_the_first_choice_is_the_heaviest_row_of_a_token():
    routing = Routing(
        token=torch.tensor([2, 0, 0, 2]), expert=torch.tensor([1, 3, 0, 2]), weight=torch.tensor([0.1, 0.3, 0.7, 0.9])
    )
    assert first_choice(routing, 3).tolist() == [0, -1, 2]


def test_gradients_reach_back_as_far_as_the_model_remembers():
    probe, model = a_probe(n_layers=1, mixer={"name": "local_attention", "window": 4}, feedforward="dense")
    probe.report(model, 1)
    lags = probe.history[-1].lag_norm
    assert all(value > 0 for value in lags[:4])
    assert all(value == 0 for value in lags[4:])


def test_a_collapsed_router_raises_its_alarm_within_three_reports():
    probe, model = a_probe()
    probe.report(model, 1)
    assert probe.report(model, 2)["health/expert_dead"] == 0
    for mixture in mixtures(model):
        with torch.no_grad():
            mixture.router.gate.weight.zero_()  # type: ignore[union-attr]
    # Ties go to the lowest experts, so that the others starve
    alarms = [probe.report(model, step)["health/expert_dead"] for step in (3, 4, 5)]
    assert alarms[-1] == 2


@dataclass
class Sick:
    """One layer at one report, as the detector reads it."""

    routing: dict[str, float] = field(default_factory=dict)
    loads: list[float] = field(default_factory=list)
    gate: dict[str, float] = field(default_factory=dict)


def a_history(random: np.random.Generator, collapse: str | None, onset: int, reports: int = 20) -> list[Sick]:
    """A layer over `reports`: loads drawn from drifting preferences, entropy and saturation that fall and rise in
    part, as in healthy training; from `onset` on with one collapse, which is not complete at once."""
    experts, tokens, k = int(random.choice([4, 8, 16])), 512, int(random.integers(1, 3))
    preference = random.normal(0, 0.35, experts)
    end_entropy = random.uniform(0.2, 0.95)
    saturation = random.uniform(0, 0.6)
    victim = int(random.integers(experts))
    history = []
    for report in range(reports):
        preference = preference + random.normal(0, 0.05, experts)
        share = np.exp(preference) / np.exp(preference).sum()
        progress = report / (reports - 1)
        entropy = 0.97 + (end_entropy - 0.97) * progress + random.normal(0, 0.02)
        low, high = saturation * progress * random.uniform(0.8, 1.2, 2)
        if collapse and report >= onset:
            if collapse == "expert_dead":
                share[victim] *= 0.02
            elif collapse == "entropy_low":
                share = np.where(np.arange(experts) == victim, 1.0, 0.03 / experts)
                entropy = random.uniform(0.01, 0.1)
            else:
                high = random.uniform(0.98, 1.0)
        loads = random.multinomial(tokens * k, share / share.sum()).astype(float)
        history.append(
            Sick(
                routing={"entropy_norm": min(1.0, max(0.0, entropy)), "cv": float(loads.std() / loads.mean())},
                loads=loads.tolist(),
                gate={"sat_low": min(1.0, low), "sat_high": min(1.0, high)},
            )
        )
    return history


def alarms(history: list[Sick]) -> list[dict[str, float]]:
    detector = CollapseDetector()
    return [detector.update([layer]) for layer in history]


def test_collapses_are_caught_and_healthy_runs_left_alone(capsys: pytest.CaptureFixture[str]):
    random = np.random.default_rng(0)
    runs = 1000
    caught = {}
    for kind in KINDS:
        hits = 0
        for _ in range(runs):
            onset = int(random.integers(3, 15))
            seen = alarms(a_history(random, kind, onset))
            hits += any(report[f"health/{kind}"] > 0 for report in seen[onset : onset + 3])
        caught[kind] = hits / runs
    false = sum(any(any(report.values()) for report in alarms(a_history(random, None, 0))) for _ in range(runs)) / runs
    with capsys.disabled():
        rates = ", ".join(f"{kind} {rate:.1%}" for kind, rate in caught.items())
        print(f"\ncollapses caught within 3 reports: {rates}; false alarms on healthy runs: {false:.1%}")
    assert min(caught.values()) >= 0.95
    assert false <= 0.01


def test_the_detector_goes_on_after_a_resume_where_it_was():
    history = a_history(np.random.default_rng(1), "expert_dead", 5)
    whole = alarms(history)
    first, second = CollapseDetector(), CollapseDetector()
    rows = [first.update([layer]) for layer in history[:6]]
    second.load(first.state())
    assert rows + [second.update([layer]) for layer in history[6:]] == whole


def test_rows_of_a_trial_hold_the_health_columns():
    config = {
        "model": MODEL,
        "training": {"steps": 4, "batch_size": 4, "sequence_length": 512, "eval_every": 2, "warmup_steps": 1},
    }
    rows = list(train(config))
    assert "moe/churn" not in rows[0]
    assert 0 <= rows[1]["moe/churn"] <= 1
    assert rows[1]["aux/balance"] > 0
