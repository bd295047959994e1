"""Drawing from a finite training set: every example once an epoch, in an order that is a function of (seed, epoch)."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from workloads import seeding


def rows_of_step(seed: int, step: int, batch_size: int, count: int) -> np.ndarray:
    """[batch_size] indices below `count`: those of step 1, 2, ... are cut from epochs that follow one another."""
    start = (step - 1) * batch_size
    epochs = range(start // count, (start + batch_size - 1) // count + 1)
    orders = [seeding.numpy_generator(seed, "epoch", epoch).permutation(count) for epoch in epochs]
    first = start - epochs.start * count
    return np.concatenate(orders)[first : first + batch_size]


def fingerprint(options: Any, *arrays: np.ndarray) -> str:
    """sha256 of a task's options and data."""
    digest = hashlib.sha256(repr(options).encode())
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
