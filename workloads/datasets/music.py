"""Piano rolls of chorales. Torch-free."""

from __future__ import annotations

import numpy as np

from workloads.datasets.catalogue import dataset
from workloads.datasets.store import folder

KEYS = 88
SPLITS = ("train", "valid", "test")

Rolls = list[np.ndarray]
"""One array [frames, 88] of bool a piece."""


def read_chorales() -> dict[str, Rolls]:
    """JSB-m21 by split.

    Raises:
        DataError: the data set is not on this machine.
    """
    entry = dataset("jsb_m21")
    with np.load(folder(entry) / entry.members[0], allow_pickle=False) as file:
        return {split: _pieces(file[f"{split}_rolls"], file[f"{split}_lengths"]) for split in SPLITS}


def _pieces(packed: np.ndarray, lengths: np.ndarray) -> Rolls:
    frames = np.unpackbits(packed, axis=1, count=KEYS).astype(bool)
    return np.split(frames, np.cumsum(lengths)[:-1])
