"""CLRS-30's algorithms as sequences, and the program that draws their samples."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from workloads import build_task
from workloads.datasets import clrs_samples
from workloads.datasets.store import CACHE_VARIABLE
from workloads.errors import DataError
from workloads.tasks.base import IGNORE

NODES = 16


def test_every_node_is_given_before_the_first_is_asked_for():
    task = build_task("clrs")
    batch = task.batch(1, 0, 8, 1)
    given, asked = batch.inputs[:, :NODES], batch.inputs[:, NODES:]
    assert torch.equal(given[..., :-1], asked[..., :-1])
    assert (given[..., -1] == 0).all()
    assert (asked[..., -1] == 1).all()
    assert (batch.targets[:, :NODES] == IGNORE).all()
    keys = given[..., 1]
    assert torch.equal(batch.targets[:, NODES:], (keys > keys.mean(1, keepdim=True)).long())


def test_one_node_that_is_asked_for_is_answered_at_the_last_step():
    batch = build_task("clrs", algorithm="minimum").batch(1, 0, 8, 1)
    assert (batch.targets[:, :-1] == IGNORE).all()
    assert torch.equal(batch.targets[:, -1], batch.inputs[:, :NODES, 1].argmin(1))


def test_rows_of_matrices_have_one_width_at_every_number_of_nodes():
    task = build_task("clrs", algorithm="bfs")
    small, large = (task.parts[split][0] for split in ("train", "test"))
    assert small.shape[1:] == (2 * 16, 1 + 2 * 64 + 1)
    assert large.shape[1:] == (2 * 64, 1 + 2 * 64 + 1)
    first, second = small[..., 1:65], small[..., 65:129]
    assert (first[..., 16:] == 0).all()
    assert (second[..., 16:] == 0).all()
    assert np.array_equal(first[0, :16, 0] + 2, task.parts["train"][1][0, 16:])


def test_without_the_samples_one_message_names_package_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match=r"pip package dm-clrs 2\.0\.3; fetch it: orch data prepare clrs30"):
        build_task("clrs")


class Point(SimpleNamespace):
    """A data point in the form of dm-clrs."""

    def tree_flatten(self) -> tuple[tuple[np.ndarray], tuple[str, ...]]:
        return (self.data,), (self.name, self.location, self.type_)

    @classmethod
    def tree_unflatten(cls, about: tuple[str, ...], data: list[np.ndarray]) -> Point:
        return point(*about, data[0])


def point(name: str, location: str, type_: str, data: np.ndarray) -> Point:
    return Point(name=name, location=location, type_=type_, data=data)


def test_features_of_the_graph_stand_at_every_node_and_matrices_apart():
    inputs = [
        point("key", "node", "scalar", np.ones((2, 3))),
        point("kind", "node", "categorical", np.zeros((2, 3, 4))),
        point("target", "graph", "scalar", np.array([5.0, 6.0])),
        point("adj", "edge", "mask", np.ones((2, 3, 3))),
    ]
    one = point("min", "node", "mask_one", np.eye(3)[[2, 0]])
    found = clrs_samples.arrays_of(SimpleNamespace(features=SimpleNamespace(inputs=inputs), outputs=[one]))
    assert found is not None
    assert found["nodes"][0].tolist() == [[1, 0, 0, 0, 0, 5]] * 3
    assert found["edges"].shape == (2, 3, 3)
    assert found["answer"].tolist() == [[2], [0]]
    matrix = point("b", "edge", "pointer", np.zeros((2, 3, 3)))
    assert clrs_samples.arrays_of(SimpleNamespace(features=SimpleNamespace(inputs=inputs), outputs=[matrix])) is None


def test_lists_of_points_are_joined_as_trees():
    parts = [[point("key", "node", "scalar", np.full((1, 2), i))] for i in range(3)]
    (joined,) = clrs_samples.tree_map(lambda *x: np.concatenate(x), *parts)
    assert joined.data.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert joined.name == "key"


def test_the_package_is_read_where_it_lies_without_its_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = tmp_path / "clrs" / "_src"
    source.mkdir(parents=True)
    (tmp_path / "clrs" / "__init__.py").write_text("raise RuntimeError('networks')")
    (source / "samplers.py").write_text(
        "import jax, chex, tensorflow\nfrom absl import logging\nfrom clrs._src import specs\n"
    )
    (source / "specs.py").write_text("CLRS_30_ALGS = ['minimum']\n")
    kept = dict(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        samplers, specs = clrs_samples.samplers()
        assert isinstance(samplers, ModuleType)
        assert specs.CLRS_30_ALGS == ["minimum"]
    finally:
        sys.modules.clear()
        sys.modules.update(kept)
