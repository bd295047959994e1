"""A sweep's resources, and what cannot be had."""

from typing import Any

import pytest

from orchestrator.cluster.resources import LEAST, TrialResources
from orchestrator.errors import BadInput


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"cpu": 0, "gpu": 0}, "one of them above"),
        ({"cpu": -1}, "none below 0"),
        ({"gpu": 1.5}, "a part of one GPU or a whole number"),
        ({"workers": 2, "gpu": 0.5}, "Give each a whole GPU"),
    ],
)
def test_impossible_resources_are_refused_with_advice(resources: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        TrialResources.of({"resources": resources})


def test_resources_become_a_scaling_config() -> None:
    scaling = TrialResources.of({"resources": {"workers": 2, "cpu": 3, "gpu": 1}}).scaling()
    assert (scaling.num_workers, scaling.use_gpu) == (2, True)
    assert scaling.resources_per_worker == {"CPU": 3, "GPU": 1}


def test_a_sweep_without_resources_gets_one_core_a_trial() -> None:
    assert TrialResources.of({}).scaling().resources_per_worker == {"CPU": 1}


def test_places_become_resources_and_label_selectors() -> None:
    words = {"gpu": 1, "memory": "16GB", "pool": "big", "accelerator": "A100", "labels": {"zone": "in(a, b)"}}
    scaling = TrialResources.of({"resources": words}).scaling(["n2", "n1"])
    assert scaling.resources_per_worker == {"CPU": 1, "GPU": 1, "memory": 16_000_000_000}
    assert scaling.accelerator_type == "A100"
    assert scaling.label_selector == {"zone": "in(a, b)", "pool": "big", "ray.io/node-id": "!in(n1, n2)"}


def test_who_names_no_pool_keeps_off_those_that_have_a_name() -> None:
    assert TrialResources.of({}).scaling().label_selector is None
    nodes = [{"NodeID": name, "Labels": {"pool": name}, "Resources": {"CPU": 1}} for name in ("h100", "cpu")]
    nodes += [{"NodeID": "plain", "Labels": {}, "Resources": {"CPU": 1}}]
    assert TrialResources.of({}).scaling((), nodes).label_selector == {"pool": "!in(cpu, h100)"}
    named = TrialResources.of({"resources": {"pool": "cpu"}})
    assert named.scaling((), nodes).label_selector == {"pool": "cpu"}


def test_a_custom_resource_makes_a_pool_as_well() -> None:
    nodes = [
        {"NodeID": "a", "Labels": {}, "Resources": {"CPU": 1, "pool:tpu": 1}},
        {"NodeID": "b", "Labels": {}, "Resources": {"CPU": 1, "pool:old": 1}},
        {"NodeID": "c", "Labels": {}, "Resources": {"CPU": 1}},
    ]
    named = TrialResources.of({"resources": {"pool": "tpu"}}).scaling(["x"], nodes)
    assert named.resources_per_worker == {"CPU": 1, "pool:tpu": LEAST}
    assert named.label_selector == {"ray.io/node-id": "!in(b, x)"}
    assert TrialResources.of({}).scaling((), nodes).label_selector == {"ray.io/node-id": "!in(a, b)"}
