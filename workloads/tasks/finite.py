"""What tasks over finite data share: epochs as a function of (seed, epoch), the fingerprint, baselines fitted once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import wraps
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


Baselines = Callable[[Any, Any], dict[str, float]]
_FITTED: dict[tuple[str, Any], dict[str, float]] = {}


def fitted_once(baselines: Baselines) -> Baselines:
    """A task's method of one argument, worked out once a process for the same data: trials in a row share it."""

    @wraps(baselines)
    def remembered(task: Any, argument: Any) -> dict[str, float]:
        key = (task.fingerprint, argument)
        if key not in _FITTED:
            _FITTED[key] = baselines(task, argument)
        return dict(_FITTED[key])

    return remembered
