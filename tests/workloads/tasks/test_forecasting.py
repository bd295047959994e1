"""Forecasting: readers, split, windows, baselines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workloads import build_task
from workloads.datasets.series import read_series
from workloads.errors import DataError


def test_series_are_read_from_their_files():
    assert len(read_series("electricity")) == 1200
    assert read_series("co2").tolist() == [316.1, 316.1, 317.6]
    assert read_series("victoria_demand").tolist() == [1.5, 5.5]
    assert read_series("outdoor_temperature").tolist() == pytest.approx([6.6])


def task_of(**options: object) -> object:
    return build_task("forecasting", series="toy", **{"history": 30, "horizon": 10, **options})


def test_the_parts_follow_one_another_in_time_and_are_scaled_by_the_first():
    task = task_of()
    assert task.cuts == {"train": (0, 2400), "val": (2400, 3200), "test": (3200, 4000)}
    assert task.values[:2400].mean() == pytest.approx(0, abs=1e-4)
    assert task.values[:2400].std() == pytest.approx(1, abs=1e-4)


def test_training_windows_end_before_validation_begins():
    task = task_of()
    assert set(task.places("val")) == set(range(2400, 3191))
    assert task.places("test").max() + 10 == 4000
    task.values = np.arange(4000, dtype=np.float32)
    batch = [task.batch(step, 0, 64, 0) for step in range(1, 60)]
    last = torch.cat([b.targets[:, -1] for b in batch])
    assert last.max() == 2399
    first = torch.cat([b.inputs[:, 0, 0] for b in batch])
    assert first.min() == 0


def test_targets_follow_inputs():
    task = task_of()
    task.values = np.arange(4000, dtype=np.float32)
    batch = task.batch(1, 0, 8, 0)
    assert (batch.targets[:, 0] - batch.inputs[:, -1, 0] == 1).all()
    assert (batch.targets.diff(dim=1) == 1).all()


def test_centring_changes_inputs_and_targets_alike_and_not_the_score():
    plain, centred = task_of(), task_of(centred=True)
    a, b = plain.batch(2, 1, 8, 0), centred.batch(2, 1, 8, 0)
    last = a.inputs[:, -1:, 0]
    assert torch.allclose(a.inputs[..., 0] - last, b.inputs[..., 0])
    assert torch.allclose(a.targets - last, b.targets)
    persistence = plain.evaluate(lambda inputs: inputs[:, -1:, 0].expand(-1, 10), 100, 0)
    zero = centred.evaluate(lambda inputs: torch.zeros(len(inputs), 10), 100, 0)
    assert persistence == pytest.approx(zero, rel=1e-5)
    assert persistence["val_mse"] == pytest.approx(plain.baseline(0)["persistence"], rel=1e-5)


def test_the_seasonal_baseline_repeats_the_period():
    task = task_of(history=200, horizon=400)
    period, values = 168, task.values
    errors = []
    for place in task.places("val"):
        guess = [values[place - period + h % period] for h in range(400)]
        errors.append(np.square(np.array(guess) - values[place : place + 400]).mean())
    assert task.baselines("val")["seasonal"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_ridge_is_the_best_of_the_baselines_on_a_periodic_series():
    task = task_of(history=200, horizon=24)
    found = task.baseline(0)
    assert found["ridge"] < 0.9 * found["seasonal"]
    assert found["ridge"] < 0.5 * found["persistence"]
    assert found["ridge_test"] == task.baselines("test")["ridge"] != found["ridge"]


def test_a_series_that_is_too_short_is_refused():
    with pytest.raises(DataError, match=r"task\.history 168 and task\.horizon 1440"):
        build_task("forecasting", series="toy", horizon=1440)
