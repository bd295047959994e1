"""MQAR: rules, labels, distances."""

from __future__ import annotations

import numpy as np
import pytest

from workloads import build_task
from workloads.errors import ConfigError
from workloads.tasks.base import IGNORE
from workloads.tasks.generated import distinct
from workloads.tasks.recall import power_law_places

V, K, T = 64, 5, 32


def labels(tokens: list[int]) -> list[int]:
    """What a reader with a dictionary answers."""
    known = dict(zip(tokens[0 : 2 * K : 2], tokens[1 : 2 * K : 2], strict=True))
    return [IGNORE] * 2 * K + [known.get(token, IGNORE) for token in tokens[2 * K :]]


def test_labels_are_what_a_dictionary_answers():
    inputs, targets = build_task("mqar", vocab_size=V, num_pairs=K).draw(np.random.default_rng(0), 300, T)
    assert [labels(row) for row in inputs.tolist()] == targets.tolist()


def test_pairs_and_queries_follow_the_rule():
    inputs, targets = build_task("mqar", vocab_size=V, num_pairs=K).draw(np.random.default_rng(1), 300, T)
    for row in inputs:
        keys, values, rest = row[0 : 2 * K : 2], row[1 : 2 * K : 2], row[2 * K :]
        assert len(set(keys)) == len(set(values)) == K
        assert 1 <= keys.min() <= keys.max() < V // 2 <= values.min() <= values.max() < V
        assert sorted(rest[rest > 0]) == sorted(keys)
        assert (rest[1::2] == 0).all()
    assert ((targets != IGNORE).sum(1) == K).all()


def test_all_keys_and_values_occur():
    inputs, _ = build_task("mqar", vocab_size=V, num_pairs=K).draw(np.random.default_rng(2), 500, T)
    assert set(inputs[:, : 2 * K].flat) == set(range(1, V))


def test_random_non_queries_leave_the_answers_as_they_are():
    task = build_task("mqar", vocab_size=V, num_pairs=K, random_non_queries=True)
    inputs, targets = task.draw(np.random.default_rng(3), 300, T)
    assert (inputs[:, 2 * K :] > 0).mean() > 0.9
    row, place = np.nonzero(targets != IGNORE)
    for r, p in zip(row, place, strict=True):
        known = dict(zip(inputs[r, 0 : 2 * K : 2], inputs[r, 1 : 2 * K : 2], strict=True))
        assert known[inputs[r, p]] == targets[r, p]


def test_the_first_place_follows_the_power_law():
    a, below, rows = 0.01, 10, 20_000
    first = power_law_places(np.random.default_rng(4), rows, 3, below, a)[:, 0]
    weight = np.arange(1, below + 1) ** (a - 1)
    expected = weight / weight.sum()
    seen = np.bincount(first, minlength=below) / rows
    assert np.abs(seen - expected).max() < 4 * np.sqrt(0.25 / rows)  # four deviations of a share at its worst


def test_places_do_not_repeat_and_can_be_all_of_them():
    places = power_law_places(np.random.default_rng(5), 50, 8, 8, 0.01)
    assert (np.sort(places, axis=1) == np.arange(8)).all()


@pytest.mark.parametrize(("count", "below"), [(3, 40), (6, 7), (7, 7)])
def test_distinct_numbers_are_uniform_and_do_not_repeat(count: int, below: int):
    drawn = distinct(np.random.default_rng(6), 8000, count, below)
    assert all(len(set(row)) == count for row in drawn.tolist())
    for column in drawn.T:
        share = np.bincount(column, minlength=below) / len(drawn)
        assert np.abs(share - 1 / below).max() < 5 * np.sqrt(1 / below / len(drawn))


@pytest.mark.parametrize("length", [18, 33])
def test_a_length_without_room_is_refused_with_what_would_do(length: int):
    with pytest.raises(ConfigError, match="at least 20"):
        build_task("mqar", num_pairs=K).signature(length)


def test_more_pairs_than_keys_are_refused():
    with pytest.raises(ValueError, match="num_pairs"):
        build_task("mqar", vocab_size=8, num_pairs=4)


def test_baselines_are_the_closed_forms():
    assert build_task("mqar").baseline(64) == {"chance": 1 / 4096, "any_value": 0.25}
