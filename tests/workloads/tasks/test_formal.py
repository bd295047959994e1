"""Dyck strings and ListOps against readers written the plain way."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch

from workloads import build_task
from workloads.tasks.base import IGNORE
from workloads.tasks.dyck import closing_distances, dyck_strings
from workloads.tasks.listops import CLOSE, FIRST_OPERATOR, PADDING, SM, ListOps, grow

KINDS, DEPTH, SHORTEST, LONGEST = 3, 4, 10, 60


def strings() -> list[list[int]]:
    drawn = dyck_strings(np.random.default_rng(0), 2000, KINDS, DEPTH, SHORTEST, LONGEST)
    return [[int(s) for s in row if s] for row in drawn]


def read(string: list[int]) -> tuple[list[int], list[int]]:
    """Depth before each symbol, and distance back from each closing bracket; fails on what is not balanced."""
    stack: list[tuple[int, int]] = []
    depths, distances = [], []
    for i, symbol in enumerate(string):
        depths.append(len(stack))
        if symbol <= KINDS:
            stack.append((symbol, i))
            distances.append(0)
        else:
            kind, opened = stack.pop()
            assert symbol - KINDS == kind
            distances.append(i - opened)
    assert not stack
    return depths, distances


def test_strings_are_balanced_and_stop_at_the_first_chance():
    for string in strings():
        depths, _ = read(string)
        assert SHORTEST <= len(string) <= LONGEST
        assert max(depths) <= DEPTH
        assert all(depth > 0 for depth in depths[SHORTEST:])


def test_brackets_open_with_probability_one_half_between_the_bounds():
    opened = [
        symbol <= KINDS
        for string in strings()
        for symbol, depth in zip(string[:SHORTEST], read(string)[0], strict=False)
        if 0 < depth < DEPTH
    ]
    # strings over the longest length are left out, which favours closing a little
    assert np.mean(opened) == pytest.approx(0.5, abs=0.03)


def test_kinds_are_uniform():
    firsts = np.bincount([string[0] for string in strings()], minlength=KINDS + 1)[1:]
    assert np.abs(firsts / firsts.sum() - 1 / KINDS).max() < 0.05


def test_distances_are_those_of_a_stack():
    drawn = dyck_strings(np.random.default_rng(1), 200, KINDS, DEPTH, SHORTEST, LONGEST)
    distances = closing_distances(drawn, KINDS)
    for row, distance in zip(drawn, distances, strict=True):
        string = [int(s) for s in row if s]
        assert distance[: len(string)].tolist() == read(string)[1]


def test_a_reader_with_a_stack_scores_all_closing_brackets():
    task = build_task("dyck", kinds=KINDS, depth=DEPTH, min_length=SHORTEST, max_length=LONGEST, validation_examples=60)

    def innermost(inputs: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*inputs.shape, 2 * KINDS + 1)
        for b, row in enumerate(inputs.tolist()):
            stack: list[int] = []
            for t, symbol in enumerate(row):
                if symbol > KINDS:
                    stack.pop()
                elif symbol:
                    stack.append(symbol)
                if stack:
                    logits[b, t, stack[-1] + KINDS] = 1
        return logits

    metrics = task.evaluate(innermost, 20, 0)
    closing = {name: value for name, value in metrics.items() if "close" in name}
    assert closing == dict.fromkeys(("val_close_accuracy", "val_close_accuracy_near", "val_close_accuracy_far"), 1.0)
    assert task.baseline(0) == {"chance": pytest.approx(1 / KINDS)}


def value_of(tokens: list[int]) -> tuple[int, list[int]]:
    """Value of the expression that the tokens begin with, and what is left of them."""
    head, *rest = tokens
    if head < FIRST_OPERATOR:
        return head - 1, rest
    arguments = []
    while rest[0] != CLOSE:
        argument, rest = value_of(rest)
        arguments.append(argument)
    assert 2 <= len(arguments) <= 10
    functions = [min, max, lambda a: int(statistics.median(a)), lambda a: sum(a) % 10]
    return functions[head - FIRST_OPERATOR](arguments), rest[1:]


@pytest.mark.parametrize(("shortest", "longest"), [(20, 100), (100, 400)])
def test_listops_answers_are_the_expressions_values(shortest: int, longest: int):
    inputs, targets = build_task("listops", min_length=shortest, max_length=longest).draw(
        np.random.default_rng(2), 60, 0
    )
    assert len(inputs) == 60
    for row, target in zip(inputs.tolist(), targets.tolist(), strict=True):
        length = sum(token != PADDING for token in row)
        assert shortest < length < longest
        value, rest = value_of(row[:length])
        assert rest == []
        assert target[length - 1] == value
        assert [t for t in target if t != IGNORE] == [value]


def test_all_operators_and_values_occur():
    inputs, targets = build_task("listops", min_length=20, max_length=100).draw(np.random.default_rng(3), 400, 0)
    assert set(targets.flat) == {IGNORE, *range(10)}
    assert set(inputs.flat) == set(range(CLOSE + 1))


def test_trees_grow_by_the_rule():
    levels = grow(np.random.default_rng(4), 4000, 10, 10, 10**9)
    below = levels[1]
    operators = below.operators >= 0
    assert operators.mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / len(operators)))
    assert below.arguments[operators].mean() == pytest.approx(6.0, abs=0.1)
    assert set(below.arguments[operators]) == set(range(2, 11))
    assert set(levels[0].operators) == set(range(SM + 1))
    assert len(levels) == 10
    assert (levels[-1].operators < 0).all()


def test_the_majority_baseline_is_counted_on_the_validation_split():
    task = build_task("listops", min_length=20, max_length=100, validation_examples=500)
    assert isinstance(task, ListOps)
    answers = [int(t[t != IGNORE]) for batch in task.validation(100, 0) for t in batch.targets]
    shares = np.bincount(answers) / len(answers)
    assert task.baseline(0)["majority"] in shares
    assert 0.1 < task.baseline(0)["majority"] < 0.25
