"""`match:` solves a size so that variants have one budget, asked of real models."""

from __future__ import annotations

import pytest

from orchestrator.errors import BadInput
from orchestrator.planning import make_plan
from orchestrator.sizing import SubprocessSizer
from orchestrator.spec import load_spec
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
