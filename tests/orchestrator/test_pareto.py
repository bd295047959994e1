"""Pareto sets: the function itself, and the flags that sweeps, leaderboards and tables carry."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import pareto, report
from orchestrator.board import leaderboard
from orchestrator.cli import render
from orchestrator.store import Store, open_store
from tests.support.learned import finish, submitted

TWO = """\
name: two
parameters: {training.lr: [0.001, 0.002, 0.003]}
seeds: 2
metrics: [{name: val_bpb, goal: minimize}, {name: tokens_per_s, goal: maximize}]
"""
ONE = "name: one\nparameters: {training.lr: [0.001, 0.002]}\n"


def dominated(point: tuple[float, ...], by: tuple[float, ...]) -> bool:
    """Both are to be small."""
    return all(a <= b for a, b in zip(by, point, strict=True)) and by != point


@pytest.mark.parametrize("metrics", [1, 2, 3])
def test_the_front_is_what_no_other_point_dominates(metrics: int) -> None:
    rng = random.Random(metrics)
    points = {n: tuple(rng.randrange(6) for _ in range(metrics)) for n in range(40)}
    expected = {n for n, point in points.items() if not any(dominated(point, other) for other in points.values())}
    assert pareto.front(points, ["minimize"] * metrics) == expected
    for goals in itertools.product(["minimize", "maximize"], repeat=metrics):
        signs = [1 if goal == "minimize" else -1 for goal in goals]
        turned = {n: [s * v for s, v in zip(signs, point, strict=True)] for n, point in points.items()}
        assert pareto.front(turned, list(goals)) == expected


def test_equal_points_are_all_on_the_front() -> None:
    assert pareto.front({"a": [1, 2], "b": [1, 2], "c": [1, 3]}, ["minimize", "minimize"]) == {"a", "b"}
    assert pareto.front({}, ["minimize"]) == set()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/orch.db")
    yield opened
    opened.close()


def test_a_sweep_of_several_metrics_shows_its_front_over_the_means_of_seeds(store: Store) -> None:
    sweep = submitted(store, TWO)
    # Means by configuration: (2, 100), (2.5, 200), (3, 150): the last is beaten by the second, though not each seed
    values = [(1.0, 100), (3.0, 100), (3.5, 200), (1.5, 200), (3.0, 100), (3.0, 200)]
    for trial, (loss, speed) in zip(store.trials.trials(sweep.id), values, strict=True):
        finish(store, trial, {"val_bpb": loss, "tokens_per_s": speed})
    document = report.sweep_document(sweep, store.trials.trials(sweep.id), 0)
    assert document.goals == {"val_bpb": "minimize", "tokens_per_s": "maximize"}
    assert [trial.pareto for trial in document.trials] == [True, True, True, True, False, False]
    board = leaderboard(store.sweeps, store.board)
    assert [(row.params["training.lr"], row.pareto) for row in board.rows] == [
        (0.001, True),
        (0.002, True),
        (0.003, False),
    ]
    told = _printed(render.sweep(document)) + _printed(render.leaderboard(board))
    assert told.count("PARETO") == 2
    assert told.count("TOKENS_PER_S") == 2
    assert sum(" * " in line for line in told.splitlines()) == 6


def test_a_sweep_of_one_metric_has_no_front(store: Store) -> None:
    sweep = submitted(store, ONE)
    for trial in store.trials.trials(sweep.id):
        finish(store, trial, {"val_bpb": 1.0})
    document = report.sweep_document(sweep, store.trials.trials(sweep.id), 0)
    assert {trial.pareto for trial in document.trials} == {None}
    board = leaderboard(store.sweeps, store.board)
    assert {row.pareto for row in board.rows} == {None}
    assert "PARETO" not in _printed(render.sweep(document)) + _printed(render.leaderboard(board))


def _printed(table: object) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(table)
    return console.export_text()
