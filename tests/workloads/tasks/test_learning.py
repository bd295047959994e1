"""Every task can be learned: a small run of a suitable model leaves the trivial baseline clearly behind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from workloads import build_task, list_tasks, train

# By task: options under which its smoke size is built, the baseline to beat, and the result that is clear of it.
EXPECTED: dict[str, tuple[dict[str, Any], str, float]] = {
    "a5_word": ({}, "last_element", 0.5),
    "adding": ({}, "mean", 0.02),
    "bytes_lm": ({}, "unigram", 3.8),
    "clrs": ({}, "majority", 0.8),
    "copying": ({}, "blind", 0.35),
    "cpu_trace": ({}, "persistence", 0.87),
    "dyck": ({}, "chance", 0.9),
    "forecasting": ({"series": "toy"}, "persistence", 0.4),
    "jsb_chorales": ({}, "unigram", 8.5),
    "listops": ({}, "majority", 0.4),
    "mqar": ({}, "any_value", 0.9),
    "parity": ({}, "chance", 0.95),
    "s5_word": ({}, "last_element", 0.4),
    "selective_copying": ({}, "chance", 0.9),
    "seq_digits": ({}, "majority", 0.8),
    "tabular": ({}, "prior", 0.2),
    "toy_chorales": ({}, "unigram", 8.5),
}


RUNS: dict[str, dict[str, Any]] = {}


def last(config: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """The last row of a run; a run that two tests look at is made once."""
    key = json.dumps([config, seed])
    if key not in RUNS:
        RUNS[key] = list(train(config | {"seed": seed}))[-1]
    return RUNS[key]


def better(a: float, b: float, goal: str) -> bool:
    return a < b if goal == "minimize" else a > b


def test_every_task_has_its_bar():
    assert sorted(EXPECTED) == list_tasks()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_small_run_beats_the_trivial_baseline(name: str):
    options, baseline, bar = EXPECTED[name]
    task = build_task(name, **options)
    row = last(task.smoke())
    assert better(bar, row[f"baseline/{baseline}"], task.goal), "the bar itself must be beyond the baseline"
    assert better(row[task.metric], bar, task.goal)


def test_permuted_digits_are_learned_too():
    """Eight pixels a step, in an order that has nothing of the image left."""
    config = build_task("seq_digits").smoke()
    permuted = {"task": {"name": "seq_digits", "by": "row", "permuted": True}}
    row = last(config | permuted)
    assert row["val_accuracy"] > 0.7 > 2 * row["baseline/majority"]


PARITY = {"name": "parity", "min_length": 1, "max_length": 10, "test_length": 20, "answer": "each"}


@pytest.mark.parametrize(("mixer", "solves"), [("lstm", True), ("mingru", False)])
def test_parity_needs_more_than_linear_gates_between_zero_and_one(mixer: str, solves: bool):
    """At twice the trained length: an LSTM tracks the parity, a linear recurrence with positive gates cannot."""
    task = PARITY | {"validation_examples": 200}
    training = {"steps": 250, "batch_size": 64, "lr": 1e-2, "weight_decay": 0.0, "eval_every": 250}
    model = {"d_model": 32, "n_layers": 1, "mixer": mixer}
    row = last({"task": task, "model": model, "training": training})
    if solves:
        assert row["val_accuracy"] == 1.0
        assert row["val_accuracy_trained"] == 1.0
    else:
        assert row["val_accuracy"] < 0.7


def test_recall_is_solved_by_attention_and_not_by_a_small_gru():
    attention = build_task("mqar").smoke()
    gru = attention | {"model": attention["model"] | {"mixer": "gru"}}
    answers = {name: last(config)["val_accuracy"] for name, config in (("attention", attention), ("gru", gru))}
    assert answers["attention"] > 0.98
    assert answers["gru"] < 0.5
