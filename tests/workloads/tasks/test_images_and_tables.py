"""Images as sequences and tables: readers, splits, scaling, closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workloads import build_task
from workloads.datasets.images import read_images, three_ways
from workloads.datasets.tables import one_hot, read_table
from workloads.tasks.finite import rows_of_step
from workloads.tasks.linear import ridge, softmax_regression


@pytest.mark.parametrize("count", [100, 1797, 5])
def test_the_three_splits_share_out_all_rows(count: int):
    parts = three_ways(count)
    assert sorted(np.concatenate(parts)) == list(range(count))
    assert np.allclose([len(part) / count for part in parts], [0.64, 0.16, 0.2], atol=1 / count)


def test_epochs_follow_one_another_without_a_gap():
    drawn = np.concatenate([rows_of_step(3, step, 4, 10) for step in range(1, 11)])
    epochs = drawn.reshape(4, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert len(rows_of_step(0, 5, 25, 10)) == 25


def test_digits_are_read_by_pixel_and_by_row():
    by_pixel, by_row = build_task("seq_digits"), build_task("seq_digits", by="row")
    assert by_pixel.inputs.shape == (1797, 64, 1)
    assert by_row.inputs.shape == (1797, 8, 8)
    assert torch.equal(by_pixel.inputs.flatten(), by_row.inputs.flatten())
    train = by_pixel.inputs[by_pixel.train]
    assert float(train.mean()) == pytest.approx(0, abs=1e-4)
    assert float(train.std()) == pytest.approx(1, abs=1e-4)


def test_the_permutation_is_fixed_by_its_seed():
    plain, shuffled = build_task("seq_digits"), build_task("seq_digits", permuted=True)
    other = build_task("seq_digits", permuted=True, permutation_seed=1)
    assert torch.equal(shuffled.inputs, build_task("seq_digits", permuted=True).inputs)
    assert not torch.equal(shuffled.inputs, other.inputs)
    assert torch.equal(plain.inputs.sort(1).values, shuffled.inputs.sort(1).values)
    same_order = [plain.inputs[0].tolist().index(value) for value in shuffled.inputs[0].tolist()]
    assert same_order != sorted(same_order)


@pytest.mark.parametrize(("name", "count"), [("mnist_5k", 10), ("fashion_mnist", 25)])
def test_other_images_have_the_form_of_mnist(name: str, count: int):
    images = read_images(name)
    assert images.pixels.shape == (count, 28, 28)
    assert images.pixels.dtype == np.uint8
    parts = (images.train, images.validation, images.test)
    assert sorted(np.concatenate(parts)) == list(range(count))


def test_fashion_keeps_its_own_test_part():
    images = read_images("fashion_mnist")
    assert images.test.tolist() == list(range(20, 25))
    assert images.validation.tolist() == [18, 19]


def test_majority_is_the_share_of_the_most_frequent_class():
    task = build_task("seq_digits")
    labels = task.labels.numpy()
    most = np.bincount(labels[task.train.numpy()]).argmax()
    assert task.baseline(0)["majority"] == pytest.approx((labels[task.held_out.numpy()] == most).mean())


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("breast_cancer", (569, 30), 2),
        ("wine", (178, 13), 3),
        ("iris", (150, 4), 3),
        ("diabetes", (442, 10), 0),
        ("digits", (1797, 64), 10),
        ("letter", (5, 2), 3),
        ("diamonds", (3, 6 + 2 + 2 + 2), 0),
    ],
)
def test_tables_have_their_known_sizes(name: str, shape: tuple[int, int], classes: int):
    table = read_table(name)
    assert table.features.shape == shape
    assert table.classes == classes
    assert np.isfinite(table.features).all()


def test_categories_become_columns():
    assert one_hot(np.array(["b", "a", "b"])).tolist() == [[0, 1], [1, 0], [0, 1]]
    letter = read_table("letter")
    assert letter.target.tolist() == [1, 0, 2, 0, 1]
    assert read_table("diamonds").target == pytest.approx(np.log([326, 400, 500]))


def test_features_and_a_real_target_are_scaled_by_the_training_rows():
    task = build_task("tabular", data="diabetes")
    train = task.features[task.parts["train"]]
    assert train.mean(0) == pytest.approx(np.zeros(10), abs=1e-5)
    assert train.std(0) == pytest.approx(np.ones(10), abs=1e-5)
    held_out = task.target[task.parts["val"]]
    assert task.baseline(1)["prior"] == pytest.approx(float((held_out**2).mean()))
    metrics = task.evaluate(lambda inputs: torch.zeros(len(inputs), 1), 64, 1)
    assert metrics["val_loss"] == pytest.approx(task.baseline(1)["prior"], rel=1e-5)
    raw = read_table("diabetes").target
    error = raw[task.parts["test"]] - raw[task.parts["train"]].mean()
    assert metrics["test_rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)


def test_the_prior_of_classes_is_the_cross_entropy_of_their_frequencies():
    task = build_task("tabular", data="wine")
    train, held_out = (task.target[task.parts[part]] for part in ("train", "val"))
    p = (np.bincount(train) + 1) / (len(train) + 3)
    assert task.baseline(1)["prior"] == pytest.approx(-np.log(p[held_out]).mean(), rel=1e-5)
    assert task.baseline(1)["linear"] < 0.3


def test_ridge_solves_the_penalised_least_squares():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(50, 4)), random.normal(size=(50, 2))
    predict = ridge(x, y, 2.0)
    weights, constant = predict(np.eye(4)) - predict(np.zeros((1, 4))), predict(np.zeros((1, 4)))
    residual = y - x @ weights - constant
    assert residual.sum(0) == pytest.approx(np.zeros(2), abs=1e-9)
    assert x.T @ residual == pytest.approx(2.0 * weights, abs=1e-9)


def test_softmax_regression_is_at_its_optimum():
    random = np.random.default_rng(1)
    x, y = random.normal(size=(60, 3)), random.integers(0, 3, 60)
    logits = softmax_regression(x, y, 3)
    weights = (logits(np.eye(3)) - logits(np.zeros((1, 3)))).double().numpy()
    residual = logits(x).softmax(-1).double().numpy() - np.eye(3)[y]
    assert x.T @ residual == pytest.approx(-weights, abs=2e-2)  # float32 line search stops near the optimum
