"""Copying, selective copying and adding: rules and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from workloads import build_task
from workloads.errors import ConfigError
from workloads.tasks.base import IGNORE


def test_copying_has_the_published_layout():
    inputs, targets = build_task("copying", delay=20, symbols=10).draw(np.random.default_rng(0), 50, 0)
    assert inputs.shape == targets.shape == (50, 40)
    for x, y in zip(inputs.tolist(), targets.tolist(), strict=True):
        assert x[10:] == [0] * 19 + [9] * 11
        assert y == [0] * 30 + x[:10]
    assert set(inputs[:, :10].flat) == set(range(1, 9))


def test_the_blind_predictor_reaches_its_closed_form():
    task = build_task("copying", delay=20, symbols=10, validation_examples=50)
    probabilities = torch.zeros(40, 10)
    probabilities[:30, 0] = 1
    probabilities[30:, 1:9] = 1 / 8
    metrics = task.evaluate(lambda inputs: probabilities.log().expand(len(inputs), -1, -1), 25, 0)
    assert metrics["val_loss"] == pytest.approx(task.baseline(0)["blind"], rel=1e-6)
    assert task.baseline(0)["blind"] == pytest.approx(10 * math.log(8) / 40)


def test_recall_looks_at_the_symbols_alone():
    task = build_task("copying", delay=5, symbols=3, validation_examples=20)
    zeros = torch.nn.functional.one_hot(torch.zeros(11, dtype=torch.long), 10).float()
    metrics = task.evaluate(lambda inputs: zeros.expand(len(inputs), -1, -1), 20, 0)
    assert metrics["val_recall"] == 0
    assert metrics["val_accuracy"] == pytest.approx(8 / 11)


def test_selective_copying_asks_for_the_symbols_in_order():
    vocab, n, length = 10, 4, 30
    task = build_task("selective_copying", vocab_size=vocab, symbols=n)
    inputs, targets = task.draw(np.random.default_rng(1), 200, length)
    for x, y in zip(inputs.tolist(), targets.tolist(), strict=True):
        stretch = x[: length - n - 1]
        assert x[length - n - 1 :] == [vocab - 1] + [vocab - 2] * n
        assert [token for token in stretch if token < vocab - 2] == y[-n:]
        assert y[:-n] == [IGNORE] * (length - n)
    filled = (inputs[:, : length - n - 1] < vocab - 2).mean(0)
    share = n / (length - n - 1)
    assert np.abs(filled - share).max() < 5 * math.sqrt(share / 200)  # every place is as likely, the last too


def test_selective_copying_refuses_a_length_without_room():
    with pytest.raises(ConfigError, match="at least 33"):
        build_task("selective_copying").signature(32)


@pytest.mark.parametrize("marks", ["anywhere", "halves"])
def test_the_sum_is_of_the_two_marked_numbers(marks: str):
    inputs, targets = build_task("adding", marks=marks).draw(np.random.default_rng(2), 400, 11)
    assert inputs.dtype == np.float32
    for x, y in zip(inputs, targets, strict=True):
        places = np.flatnonzero(x[:, 1])
        assert len(places) == 2
        assert x[places, 0].sum() == pytest.approx(y[0])
        assert marks == "anywhere" or places[0] < 5 <= places[1]
    assert (inputs[:, :, 1].sum(0) > 0).all()


def test_predicting_one_has_the_error_of_two_uniform_numbers():
    task = build_task("adding", validation_examples=4000)
    metrics = task.evaluate(lambda inputs: torch.ones(len(inputs), 1), 500, 10)
    # the squared error has deviation sqrt(7/180): four standard errors over 4000 examples
    assert metrics["val_loss"] == pytest.approx(task.baseline(10)["mean"], abs=4 * math.sqrt(7 / 180 / 4000))
