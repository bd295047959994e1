"""`match:` solves a size so that variants have one budget, asked of real models."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import pytest

from orchestrator.errors import BadInput
from orchestrator.matching import Matcher
from orchestrator.planning import make_plan
from orchestrator.sizing import SubprocessSizer
from orchestrator.spec import load_spec
from orchestrator.spec.model import Match
from orchestrator.store import open_store
from tests.support.learned import search, submitted
from workloads.budget import budget

TEXT = """\
name: matched
workload:
  model: {d_model: 32, n_layers: 1, mixer: gru}
  training: {sequence_length: 16, batch_size: 2}
parameters:
  model.feedforward:
    values:
      - {name: dense, hidden: 96}
      - {name: moe, num_experts: 4, router: {name: topk, k: 1}}
      - {name: moe, num_experts: 4, router: {name: topk, k: 2}}
match: {by: active_parameters, adjust: [model.feedforward.expert_hidden, model.feedforward.hidden]}
"""


@pytest.fixture(scope="module")
def sizer():
    with SubprocessSizer() as opened:
        yield opened


def test_every_variant_has_the_budget_of_the_first(sizer):
    plan = make_plan(load_spec(TEXT), sizer)
    sizes = [budget({**trial.config, "seed": 0}).active_params for trial in plan.trials]
    assert len(sizes) == 3
    assert all(abs(size / sizes[0] - 1) < 0.02 for size in sizes)
    assert plan.trials[0].params.get("model.feedforward.expert_hidden") is None
    widths = [trial.params["model.feedforward.expert_hidden"] for trial in plan.trials[1:]]
    assert widths[0] > widths[1] > 1
    assert not plan.notes


def test_a_target_that_no_size_reaches_is_told(sizer):
    text = TEXT.replace("match: {", "match: {to: 1_000_000, max: 64, ")
    plan = make_plan(load_spec(text), sizer)
    assert all("misses the budget" in note for note in plan.notes)
    assert len(plan.notes) == 3


def test_a_variant_without_the_size_is_a_mistake(sizer):
    text = TEXT.replace("adjust: [model.feedforward.expert_hidden, model.feedforward.hidden]", "adjust: model.nothing")
    with pytest.raises(BadInput, match="none of which this configuration has"):
        make_plan(load_spec(text), sizer)


def test_an_impossible_configuration_is_told_and_the_process_goes_on(sizer):
    with pytest.raises(BadInput, match="unknown key"):
        sizer.size({"model": {"nothing": 1}})
    assert sizer.size({"model": {"d_model": 8}})["params"] > 0


class Counting:
    """A sizer whose cost is a formula of one width."""

    def __init__(self, cost: Callable[[int], float]) -> None:
        self._cost, self.asked = cost, set[int]()

    def size(self, config: Mapping[str, Any]) -> dict[str, float]:
        self.asked.add(config["width"])
        return {"params": self._cost(config["width"])}


@pytest.mark.parametrize("seed", range(40))
def test_the_nearest_size_is_found_among_few_and_without_a_look_at_huge_ones(seed):
    rng = random.Random(seed)
    slope, grain, base = rng.uniform(0.1, 50), rng.choice([1, 1, 8, 100]), rng.uniform(0, 1000)
    step, least, most = rng.choice([1, 1, 8]), rng.choice([1, 5, 40]), rng.choice([300, 4096, 65_536])

    def cost(width: int) -> float:
        return base + slope * (width // grain) * grain + 1e-6 * width

    sizes = range(-(-least // step) * step, most + 1, step)
    target = cost(rng.choice([*sizes[:200], sizes[-1] * 2]))
    sizer = Counting(cost)
    words = {"by": "parameters", "adjust": "width", "to": target, "min": least, "max": most, "multiple_of": step}
    found = Matcher(Match(**words), sizer).matched({"width": rng.choice([None, least, 60, 500])})
    assert abs(cost(found.value) - target) == min(abs(cost(size) - target) for size in sizes)
    assert found.value in sizes
    assert len(sizer.asked) <= 30
    assert max(sizer.asked) <= max(4 * found.value, 600)


LEARNED = """\
name: learned-match
parameters:
  training.lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-1}
  model.feedforward: {values: [{name: dense, hidden: 32}, {name: dense, hidden: 48}]}
match: {by: parameters, adjust: model.feedforward.hidden}
search: {method: tpe, max_trials: 8, startup: 3}
"""


def test_what_a_searcher_proposes_is_matched_to_the_sweeps_first_configuration(sizer, tmp_path):
    with closing(open_store(f"sqlite:///{tmp_path}/orch.db")) as store:
        sweep = submitted(store, LEARNED, sizer)
        for at_most in (4, 100):  # the second searcher takes over from the first
            search(store, sweep, lambda trial: {"val_bpb": float(trial.params["training.lr"])}, at_most=at_most,
                   sizer=sizer)  # fmt: skip
        trials = store.trials.trials(sweep.id)
    assert len(trials) == 8
    assert len({trial.config["model"]["feedforward"]["hidden"] for trial in trials}) == 1


GOLDEN = """\
name: golden
workload:
  model: {d_model: 32, n_layers: 1, mixer: gru, feedforward: {name: dense, hidden: 96}}
  training: {sequence_length: 16, batch_size: 2}
parameters:
  model.feedforward.name: [dense, moe]
  model.feedforward.router.k: {values: [1, 2, 4], when: "feedforward.name == 'moe'"}
  model.feedforward.num_experts: {expr: "4 * k", when: "feedforward.name == 'moe'"}
  training.steps: [100, 200]
  training.warmup_steps: {expr: "steps // 10"}
constraints: ["not (steps == 100 and feedforward.name == 'moe' and k == 2)"]
match: {by: active_parameters, adjust: [model.feedforward.expert_hidden, model.feedforward.hidden]}
"""


def test_a_conditional_derived_and_matched_sweep_resolves_to_the_table_written_by_hand(sizer):
    """By hand: a gated layer has 3 · 32 weights a hidden unit, so the dense one has 96 · 96 = 9216.

    k experts of width w among 4k have 96 · k · w + 32 · 4k: nearest to 9216 at w = 95 (+32), 47 (+64) and 23 (+128).
    The first dense variant sets the budget; the second is matched by its own width, which comes out as it was.
    """
    plan = make_plan(load_spec(GOLDEN), sizer)
    rows = []
    for trial in plan.trials:
        feedforward, training = trial.config["model"]["feedforward"], trial.config["training"]
        active = budget({**trial.config, "seed": 0}).active_params
        width = feedforward.get("expert_hidden", feedforward.get("hidden"))
        chosen = feedforward["router"]["k"] if feedforward["name"] == "moe" else None
        rows.append(
            (feedforward["name"], chosen, feedforward.get("num_experts"), width, training["steps"],
             training["warmup_steps"], active)
        )  # fmt: skip
    assert rows == [
        ("dense", None, None, 96, 100, 10, 32032),
        ("dense", None, None, 96, 200, 20, 32032),
        ("moe", 1, 4, 95, 100, 10, 32064),
        ("moe", 1, 4, 95, 200, 20, 32064),
        ("moe", 2, 8, 47, 200, 20, 32096),
        ("moe", 4, 16, 23, 100, 10, 32160),
        ("moe", 4, 16, 23, 200, 20, 32160),
    ]
    assert (plan.configurations, plan.constrained) == (7, 1)
