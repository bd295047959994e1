"""Samples of CLRS-30's algorithms. Torch-free. Shapes: N samples of n nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workloads.datasets.catalogue import dataset
from workloads.datasets.store import folder

MOST_NODES = 64


@dataclass(frozen=True, slots=True)
class Samples:
    """What an algorithm is given and what it answers.

    nodes: [N, n, F] float32 by node. edges: [N, n, c, n] float32, rows of c matrices; c may be 0.
    answer: [N, n] int64 by node, or [N, 1] for the one node that is asked for.
    """

    nodes: np.ndarray
    edges: np.ndarray
    answer: np.ndarray


def read_samples(algorithm: str) -> dict[str, Samples]:
    """An algorithm's samples by split: "train" and "val" of 16 nodes, "test" of 64.

    Raises:
        DataError: the data set is not on this machine.
    """
    entry = dataset("clrs30")
    with np.load(folder(entry) / entry.members[0], allow_pickle=False) as file:
        return {split: _samples(file, f"{algorithm}/{split}") for split in ("train", "val", "test")}


def _samples(file: np.lib.npyio.NpzFile, place: str) -> Samples:
    nodes, answer = file[f"{place}/nodes"], file[f"{place}/answer"].astype(np.int64)
    count, n = nodes.shape[:2]
    edges = file[f"{place}/edges"] if f"{place}/edges" in file else np.zeros((count, n, 0), np.float32)
    return Samples(nodes, edges.reshape(count, n, edges.shape[2] // n, n), answer)
