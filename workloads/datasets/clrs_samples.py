"""A program: the samplers of dm-clrs -> the samples of CLRS-30 in one file. Runs where dm-clrs lies unpacked.

Usage: clrs_samples.py OUT.npz

Sizes and seeds are those of CLRS-30: 1,000 samples of 16 nodes to train, 32 of 16 to validate, 32 of 64 to test; for
algorithms with one answer a sample the last two times their multiplier. Algorithms that answer for edges or for the
whole graph are left out. OUT holds for each ALGORITHM and SPLIT, n nodes:

`ALGORITHM/SPLIT/nodes` [N, n, F] float32: what is given of each node, then what is given of the graph;
`ALGORITHM/SPLIT/edges` [N, n, c·n] float32: rows of the matrices that are given; only where there are any;
`ALGORITHM/SPLIT/answer` [N, n] uint8: a pointer to a node, or 0 and 1; or [N, 1]: the one node that is asked for.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

ONE_HOT, POINTERS = ("categorical", "mask_one"), ("pointer", "should_be_permutation")


def stand_in(name: str, **contents: Any) -> None:
    """A module with just what the samplers touch of one that they import but need not have."""
    module = ModuleType(name)
    module.__dict__.update(contents)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


def tree_map(function: Any, *trees: Any) -> Any:
    """`function` on the arrays of lists of data points."""
    first = trees[0]
    if isinstance(first, (list, tuple)):
        return type(first)(tree_map(function, *each) for each in zip(*trees, strict=True))
    if isinstance(first, np.ndarray):
        return function(*trees)
    about = first.tree_flatten()[1]
    return type(first).tree_unflatten(about, [function(*(tree.data for tree in trees))])


def samplers() -> tuple[Any, Any]:
    """dm-clrs' modules `samplers` and `specs`, without JAX, TensorFlow and the networks, which draw no samples."""

    def unchanged(*_: Any, **__: Any) -> Any:
        return lambda each: each

    stand_in("jax", Array=np.ndarray)
    stand_in("jax.tree_util", tree_map=tree_map, register_pytree_node_class=lambda cls: cls)
    stand_in("jax.numpy", ndarray=np.ndarray, vectorize=lambda function, **_: function)
    stand_in("chex", Array=np.ndarray, Numeric=object, assert_rank=lambda *_: None, dataclass=unchanged)
    stand_in("tensorflow", Tensor=np.ndarray)
    stand_in("absl")
    stand_in("absl.logging", info=lambda *_: None, warning=lambda *_: None)
    root = next(Path(path) / "clrs" for path in sys.path if (Path(path) / "clrs/_src/samplers.py").is_file())
    # Their own __init__ imports the networks
    stand_in("clrs", __path__=[str(root)])
    stand_in("clrs._src", __path__=[str(root / "_src")])
    from clrs._src import samplers, specs

    return samplers, specs


def arrays_of(feedback: Any) -> dict[str, np.ndarray] | None:
    """What one algorithm's samples give and ask; None where the first answer is not one of nodes."""
    answer = feedback.outputs[0]
    if answer.location != "node":
        return None
    samples, nodes = answer.data.shape[:2]
    given, edges = [], []
    for point in feedback.features.inputs:
        data = np.asarray(point.data, np.float32)
        if point.location == "edge":
            edges.append(data)
        elif point.location == "graph":
            given.append(np.broadcast_to(data.reshape(samples, 1, -1), (samples, nodes, data[0].size)))
        else:
            given.append(data.reshape(samples, nodes, -1))
    value = answer.data.argmax(1)[:, None] if answer.type_ == "mask_one" else answer.data
    arrays = {"nodes": np.concatenate(given, axis=2), "answer": value.astype(np.uint8)}
    return arrays | ({"edges": np.concatenate(edges, axis=2)} if edges else {})


def main(out: Path) -> None:
    """Draw every sample and write them."""
    module, specs = samplers()
    arrays: dict[str, np.ndarray] = {}
    for algorithm in specs.CLRS_30_ALGS:
        multiplier = specs.CLRS_30_ALGS_SETTINGS[algorithm]["num_samples_multiplier"]
        for split, size in module.CLRS30.items():
            count = size["num_samples"] * (1 if split == "train" else multiplier)
            sampler, _ = module.build_sampler(algorithm, num_samples=count, length=size["length"], seed=size["seed"])
            found = arrays_of(sampler.next())
            if found is None:
                break
            arrays |= {f"{algorithm}/{split}/{name}": array for name, array in found.items()}
    np.savez(out, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
