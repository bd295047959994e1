"""Parity and group words: tables, running products, lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workloads import build_task
from workloads.tasks.base import IGNORE
from workloads.tasks.state_tracking import alternating, multiplication_table, symmetric


@pytest.mark.parametrize(("elements", "order"), [(alternating(5), 60), (symmetric(5), 120), (alternating(4), 12)])
def test_the_tables_are_groups(elements: list[tuple[int, ...]], order: int):
    table = multiplication_table(elements)
    everyone = np.arange(order)
    assert table.shape == (order, order)
    assert (np.sort(table, axis=0) == everyone[:, None]).all()
    assert (np.sort(table, axis=1) == everyone).all()
    assert (table[0] == everyone).all()
    assert (table[:, 0] == everyone).all()
    assert (table[table] == table[:, table]).all()
    assert (table != table.T).any()


@pytest.mark.parametrize(("name", "elements"), [("a5_word", alternating(5)), ("s5_word", symmetric(5))])
def test_targets_are_the_products_of_the_permutations_themselves(name: str, elements: list[tuple[int, ...]]):
    inputs, targets = build_task(name).draw(np.random.default_rng(0), 40, 12)
    for word, products in zip(inputs, targets, strict=True):
        points = list(range(5))
        for element, product in zip(word, products, strict=True):
            points = [elements[element][p] for p in points]
            assert elements[product] == tuple(points)


def test_elements_are_uniform():
    inputs, _ = build_task("a5_word").draw(np.random.default_rng(1), 2000, 6)
    assert set(inputs.flat) == set(range(60))
    assert inputs.mean() == pytest.approx(29.5, abs=4 * 17.3 / np.sqrt(inputs.size))


def test_looking_at_the_current_element_alone_reaches_its_closed_form():
    task = build_task("a5_word", validation_examples=2000)
    metrics = task.evaluate(lambda inputs: torch.nn.functional.one_hot(inputs, 60).float(), 500, 5)
    expected = task.baseline(5)["last_element"]
    assert expected == pytest.approx((1 + 4 / 60) / 5)
    assert metrics["val_accuracy"] == pytest.approx(expected, abs=4 * np.sqrt(1 / 60 / 2000))
    assert metrics["val_accuracy_2x"] == pytest.approx((1 + 9 / 60) / 10, abs=4 * np.sqrt(1 / 60 / 2000))


@pytest.mark.parametrize("answer", ["end", "each"])
def test_parity_is_the_sum_of_the_bits(answer: str):
    task = build_task("parity", min_length=3, max_length=9, test_length=12, answer=answer)
    inputs, targets = task.draw(np.random.default_rng(2), 300, 0)
    assert inputs.shape[1] == task.signature(0).sequence_length
    lengths = set()
    for x, y in zip(inputs.tolist(), targets.tolist(), strict=True):
        n = x.index(0)
        lengths.add(n)
        bits = [token - 1 for token in x[:n]]
        expected = [sum(bits[: i + 1]) % 2 + 1 if answer == "each" else IGNORE for i in range(n)]
        assert y == [*expected, sum(bits) % 2 + 1, *[IGNORE] * (len(y) - n - 1)]
        assert set(x[n:]) == {0}
    assert lengths == set(range(3, 10))


def test_validation_strings_are_longer_than_any_of_training():
    task = build_task("parity", min_length=1, max_length=8, test_length=16, validation_examples=40)
    lengths = torch.cat([(batch.inputs > 0).sum(1) for batch in task.validation(7, 0)])
    assert lengths.min() == 9
    assert lengths.max() == 16
    assert all(((batch.targets != IGNORE).sum(1) == 1).all() for batch in task.validation(7, 0))


def test_accuracies_by_length_are_of_their_quarter():
    task = build_task("parity", min_length=1, max_length=8, test_length=16, validation_examples=200)

    def right_up_to_twelve(inputs: torch.Tensor) -> torch.Tensor:
        parity = (inputs == 2).sum(1) % 2 + 1
        short = (inputs > 0).sum(1) <= 12
        guess = torch.where(short, parity, 3 - parity)
        return torch.nn.functional.one_hot(guess[:, None].expand(inputs.shape), 3).float()

    metrics = task.evaluate(right_up_to_twelve, 50, 0)
    assert [metrics[f"val_accuracy_q{i}"] for i in (1, 4)] == [1.0, 0.0]
    assert metrics["val_accuracy_trained"] == 1.0
    assert metrics["val_accuracy"] == pytest.approx(0.5, abs=0.05)


def test_lengths_out_of_order_are_refused():
    with pytest.raises(ValueError, match="min_length <= max_length < test_length"):
        build_task("parity", max_length=256)
