"""Where trials may run: selectors, and what no node has."""

from dataclasses import replace

import pytest

from orchestrator.errors import BadInput
from orchestrator.places import lacking, meets, most_trials, pools_of, without
from orchestrator.records import Capacity, Place
from orchestrator.spec.document import parse_document
from orchestrator.spec.operations import Resources
from orchestrator.submit import check

BIG = Place(
    labels={"pool": "big", "zone": "a"},
    memory_bytes=64_000_000_000,
    accelerators=frozenset({"A100"}),
    cpus=16,
    gpus=2,
)
SMALL = Place(labels={"pool": "small"}, memory_bytes=8_000_000_000, cpus=4)
PLAIN = Place(labels={"zone": "b"}, memory_bytes=4_000_000_000, cpus=2)


@pytest.mark.parametrize(
    ("selector", "value", "met"),
    [
        ("big", "big", True),
        ("big", "small", False),
        ("big", None, False),
        ("!big", "small", True),
        ("!big", None, True),
        ("in(big, small)", "small", True),
        ("!in(big, small)", "small", False),
        ("!in(big, small)", "other", True),
    ],
)
def test_selectors_are_met_as_in_ray(selector, value, met):
    assert meets(selector, value) is met


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ({"pool": "big", "labels": {"zone": "a"}, "gpu": 1, "accelerator": "A100", "memory": "64GB"}, []),
        ({"pool": "bigg"}, [("pool",)]),
        ({"labels": {"zone": "c"}}, [("labels", "zone")]),
        ({"labels": {"zone": "b"}}, []),
        ({"labels": {"zone": "a"}}, [()]),
        ({"gpu": 1, "accelerator": "H100"}, [("accelerator",)]),
        ({"memory": "65GB"}, [("memory",)]),
        ({"pool": "big", "gpu": 2}, []),
        ({"pool": "big", "gpu": 4}, [("gpu",)]),
        ({"cpu": 17}, [("cpu",)]),
        ({"cpu": 3}, [()]),
        ({"memory": "8GB"}, [()]),
        ({"pool": "small", "memory": "16GB"}, [()]),
        ({}, []),
    ],
)
def test_what_no_node_has_is_told(words, keys):
    assert [key for key, _, _ in lacking(Resources(**words), [BIG, SMALL, PLAIN])] == keys


@pytest.mark.parametrize(
    ("words", "trials"),
    [
        ({"gpu": 1}, 4),
        ({"gpu": 2}, 2),
        ({"gpu": 4}, 0),
        ({"gpu": 2, "workers": 2}, 1),
        ({"gpu": 2, "workers": 3}, 0),
        ({"gpu": 0.6}, 4),
        ({"gpu": 0.3, "cpu": 0.1}, 12),
        ({"gpu": 0.1, "cpu": 0.1}, 40),
        ({"gpu": 1, "cpu": 3}, 2),
        ({"gpu": 1, "memory": "5GB"}, 2),
        ({"gpu": 1, "labels": {"zone": "a"}}, 2),
        ({"gpu": 1, "accelerator": "H100"}, 0),
    ],
)
def test_a_worker_has_all_that_it_asks_for_on_one_node(words, trials):
    node = Place(labels={"zone": "a"}, memory_bytes=8_000_000_000, cpus=4, gpus=2)
    nodes = [node, replace(node, labels={"zone": "b"}), replace(node, labels={"pool": "other"})]
    assert most_trials(Resources(**words), nodes) == trials


def test_where_every_node_is_of_a_named_pool_one_must_be_named():
    [(key, message, hint)] = lacking(Resources(), [BIG, SMALL])
    assert (key, message) == ((), "every node of the cluster is of a named pool.")
    assert hint == "Set `resources.pool` to one of big, small."


def test_each_pool_has_its_own_nodes_and_a_drained_one_counts_for_none():
    places = tuple(
        Place(labels=labels, memory_bytes=1, node_id=name, cpus=cpus, gpus=gpus)
        for name, labels, cpus, gpus in (("a", {"pool": "h100"}, 8, 4), ("b", {}, 2, 0), ("c", {"pool": "h100"}, 8, 2))
    )
    capacity = Capacity(cpus=18, gpus=6, free_cpus=1, free_gpus=1, nodes=3, places=places)
    assert {name: (pool.cpus, pool.gpus, pool.nodes) for name, pool in pools_of(capacity).items()} == {
        "": (2, 0, 1),
        "h100": (16, 6, 2),
    }
    assert pools_of(without(capacity, {"a"}))["h100"].gpus == 2
    assert without(capacity, {"a", "b", "c"}).cpus == 0


def test_nothing_is_told_of_a_cluster_whose_nodes_are_not_known():
    assert not list(lacking(Resources(pool="any"), []))


def test_a_place_that_is_not_there_is_refused_at_submission_with_the_nearest_one():
    capacity = Capacity(cpus=8, gpus=8, free_cpus=8, free_gpus=8, nodes=2, places=(BIG, SMALL))
    document = parse_document("name: x\nresources: {pool: bigg}\n", "f.yaml")
    with pytest.raises(BadInput, match=r"f.yaml:2:19: no node[\s\S]*Did you mean 'big'"):
        check(document, capacity, None)
