"""What a plan says before anything runs: sizes, hours and where they come from, early stopping, warnings."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import pytest

from orchestrator.forecast import CPU_FLOPS, History, forecast
from orchestrator.lifecycle import TrialState
from orchestrator.planning import make_plan
from orchestrator.records import Report
from orchestrator.sizing import SubprocessSizer
from orchestrator.spec import load_spec
from orchestrator.store import open_store
from tests.orchestrator.test_identity import accept
from tests.support.builders import NOW
from workloads.budget import budget
from workloads.memory import training_bytes

TEXT = """\
name: x
project: p
workload: {model: {n_layers: 1}, training: {steps: 100, batch_size: 4, sequence_length: 32}}
parameters: {model.d_model: [32, 8, 16], training.lr: [1e-3, 2e-3]}
"""
TOKENS = 100 * 4 * 32


@pytest.fixture(scope="module")
def sizer():
    with SubprocessSizer() as opened:
        yield opened


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/orch.db")
    yield opened
    opened.close()


def planned(text: str, sizer):
    spec = load_spec(text)
    return spec, make_plan(spec, sizer)


def run(store, text: str, *, seconds: float, values: list[float] | None = None) -> None:
    """The trials of a sweep, each of which took so long and reported two values."""
    sweep = accept(store, text)
    for index, trial in enumerate(store.trials.trials(sweep.id)):
        store.trials.start_trial(trial.id, now=NOW)
        store.trials.record([], facts={trial.id: {"flops_per_token": 1e6}})
        for step in (50, 100):
            value = values[index] if values else 2.0
            report = Report(trial_id=trial.id, attempt=1, step=step, metrics={"val_bpb": value + 1 / step}, at=NOW)
            store.trials.record([report])
        store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW + timedelta(seconds=seconds))


def test_sizes_are_those_of_the_smallest_and_the_largest_model(sizer):
    spec, plan = planned(TEXT, sizer)
    small, large = forecast(spec, plan, sizer).sizes
    for size, width in ((small, 8), (large, 32)):
        assert plan.trials[size.number].config["model"]["d_model"] == width
        assert size.params_count == budget(plan.trials[size.number].config).params
        assert size.memory_bytes == training_bytes(plan.trials[size.number].config)


def test_of_many_models_those_at_the_ends_are_sized(sizer):
    widths = ", ".join(str(8 * i) for i in range(1, 41))
    spec, plan = planned(TEXT.replace("[32, 8, 16]", f"[{widths}]"), sizer)
    small, large = forecast(spec, plan, sizer).sizes
    assert [plan.trials[size.number].config["model"]["d_model"] for size in (small, large)] == [8, 320]


def test_without_a_record_time_is_flops_over_an_assumed_rate_and_says_so(sizer):
    spec, plan = planned(TEXT, sizer)
    told = forecast(spec, plan, sizer).time
    flops = [budget(trial.config).train_flops_per_token * TOKENS for trial in plan.trials]
    assert told.cpu_hours == pytest.approx(sum(flops) / CPU_FLOPS / 3600)
    assert (told.recorded, told.roofline, told.gpu_hours) == (0, 6, 0.0)
    assert "an assumption: nothing is recorded yet" in told.basis


def test_time_comes_from_earlier_trials_of_the_same_shape_and_for_others_from_the_rate_they_reached(sizer, store):
    run(store, TEXT.replace("[32, 8, 16]", "[8]").replace("name: x", "name: before"), seconds=10)
    spec, plan = planned(TEXT.replace("[32, 8, 16]", "[8]").replace("steps: 100", "steps: 1000"), sizer)
    history = History(store.sweeps, store.trials, store.board)
    told = forecast(spec, plan, sizer, history).time
    assert (told.recorded, told.roofline) == (2, 0)
    assert told.cpu_hours == pytest.approx(2 * 100 / 3600)
    spec, plan = planned(TEXT.replace("[32, 8, 16]", "[16]"), sizer)
    told = forecast(spec, plan, sizer, history).time
    assert (told.recorded, told.roofline) == (0, 2)
    assert told.flops_per_s == pytest.approx(1e6 * TOKENS / 10)
    assert "the median that earlier trials reached" in told.basis
    told = forecast(spec, plan, sizer, History(store.sweeps, store.trials, store.board, "another")).time
    assert "an assumption: nothing is recorded yet" in told.basis


def test_the_files_early_stopping_is_tried_on_the_projects_own_curves(sizer, store):
    run(store, TEXT.replace("name: x", "name: before"), seconds=1, values=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    history = History(store.sweeps, store.trials, store.board)
    for rule, saved in (("{type: asha, grace_steps: 50}", True), ("{type: asha, grace_steps: 1000}", False)):
        spec, plan = planned(TEXT + f"early_terminate: {rule}\n", sizer)
        told = forecast(spec, plan, sizer, history).replayed
        assert (told.curves, told.replays, told.kept_winner) == (6, 20, 20)
        assert (told.saved > 0) is saved
        assert told.text.startswith("asha with eta = 3 would have kept the winner in 20 of 20 replays of 6 finished")
    spec, plan = planned(TEXT, sizer)
    assert forecast(spec, plan, sizer, history).replayed is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            '{training.lr: [1e-3], model.mixer.conv_width: {values: [2], when: "lr > 1"}}',
            "condition, lr > 1, never",
        ),
        ("{task.name: [bytes_lm, adding]}", "trials of the task adding do not report 'val_bpb'"),
        ("{training.lr: [1e-3, 1e-2]}", "one seed a configuration"),
    ],
)
def test_what_the_author_may_not_have_meant_is_told(words, says):
    mixer = "workload: {model: {mixer: rg_lru}}\n"
    plan = make_plan(load_spec(f"name: x\n{mixer}parameters: {words}\nmetric: {{name: val_bpb}}\n"))
    assert any(says in warning for warning in plan.warnings), plan.warnings


def test_a_condition_that_holds_sometimes_is_no_reason_for_a_warning():
    words = """{model.mixer.name: [gru, rg_lru], model.mixer.conv_width: {values: [2, 4], when: "name == 'rg_lru'"}}"""
    words = words.replace("name == ", "mixer.name == ")
    plan = make_plan(load_spec(f"name: x\nparameters: {words}\nseeds: 2\n"))
    assert plan.configurations == 3
    assert plan.warnings == []


def test_ten_thousand_cells_are_planned_in_two_seconds(capsys):
    rates, decays = (", ".join(f"{i / 1000}" for i in range(1, count)) for count in (41, 26))
    text = f"""\
name: big
workload: {{model: {{feedforward: {{name: moe, num_experts: 8}}}}}}
parameters:
  training.lr: [{rates}]
  training.weight_decay: [{decays}]
  model.d_model: [8, 16, 24, 32, 40]
  model.feedforward.router.name: [topk, switch]
  training.warmup_steps: {{expr: "d_model // 2"}}
"""
    spec = load_spec(text)
    started = time.process_time()
    plan = make_plan(spec)
    took_s = time.process_time() - started
    with capsys.disabled():
        print(f"\n10,000 cells planned in {took_s:.2f} s of CPU time")
    assert len(plan.trials) == 10_000
    assert any("10,000 trials are many" in warning for warning in plan.warnings)
    # Time is judged on a quiet machine alone
    assert took_s < 2 or os.environ.get("ORCH_BENCHMARK") != "1"
