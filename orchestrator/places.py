"""Which nodes of a cluster a trial's workers may run on. Pure.

Selectors are Ray's: `big`, `!big`, `in(a, b)`, `!in(a, b)` for the value of a node's label.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from orchestrator.records import Capacity, Place
from orchestrator.spec.operations import Resources
from workloads.errors import nearest

SLACK = 1e-9
"""Three tenths of a GPU go ten thirds of a time into one, inexactly."""

POOL_LABEL = "pool"
"""A node with this label is of that pool alone; nodes of no pool are the default one, whose name is empty."""

POOL_RESOURCE = "pool:"
"""What a node offers of a custom resource `pool:h100` makes it one of pool h100, where it has no such label."""


def pool_of(labels: Mapping[str, str], resources: Iterable[str]) -> str:
    """The pool of a node with these labels, which offers these resources."""
    offered = sorted(name.removeprefix(POOL_RESOURCE) for name in resources if name.startswith(POOL_RESOURCE))
    return labels.get(POOL_LABEL) or (offered[0] if offered else "")


def selectors_of(resources: Resources) -> dict[str, str]:
    """By label, the selector that a node must meet."""
    return dict(resources.labels) | ({POOL_LABEL: resources.pool} if resources.pool else {})


def meets(selector: str, value: str | None) -> bool:
    """Whether a node whose label has this value (None: it has no such label) meets a selector."""
    wanted = selector.strip().removeprefix("!")
    values = wanted.removeprefix("in(").removesuffix(")").split(",") if wanted.startswith("in(") else [wanted]
    found = value is not None and value in {each.strip() for each in values}
    return not found if selector.strip().startswith("!") else found


def pools_of(capacity: Capacity) -> dict[str, Capacity]:
    """What each pool has, by name. Of a cluster whose nodes are not known, all is the default pool's."""
    if not any(POOL_LABEL in place.labels for place in capacity.places):
        return {"": capacity}
    names = {place.labels.get(POOL_LABEL, "") for place in capacity.places}
    return {
        name: without(
            capacity, {place.node_id for place in capacity.places if place.labels.get(POOL_LABEL, "") != name}
        )
        for name in sorted(names)
    }


def without(capacity: Capacity, drained: Collection[str]) -> Capacity:
    """What is left of a cluster without these nodes, by their ids. Free amounts are no more than what is left."""
    left = tuple(place for place in capacity.places if place.node_id not in drained)
    if len(left) == len(capacity.places):
        return capacity
    cpus, gpus = sum(place.cpus for place in left), sum(place.gpus for place in left)
    return replace(
        capacity,
        cpus=cpus,
        gpus=gpus,
        free_cpus=min(capacity.free_cpus, cpus),
        free_gpus=min(capacity.free_gpus, gpus),
        nodes=len(left),
        places=left,
    )


def lacking(resources: Resources, places: Sequence[Place]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """What no node of the cluster has: (key within `resources`, message, hint), nothing where one node has it all."""
    if not places or any(_has_all(resources, place) for place in places):
        return
    if not resources.pool and all(POOL_LABEL in place.labels for place in places):
        named = ", ".join(sorted({place.labels[POOL_LABEL] for place in places}))
        yield (), "every node of the cluster is of a named pool.", f"Set `resources.pool` to one of {named}."
        return
    alone = False
    for label, selector in selectors_of(resources).items():
        if not any(meets(selector, place.labels.get(label)) for place in places):
            alone = True
            values = {place.labels[label] for place in places if label in place.labels}
            key = ("pool",) if label == POOL_LABEL and resources.pool else ("labels", label)
            hint = nearest(selector, values) or f"Start nodes with `ray start --labels {label}={selector}`."
            yield key, f"no node of the cluster has the label {label} = {selector}.", hint
    kinds = {kind for place in places for kind in place.accelerators}
    if resources.accelerator and resources.accelerator not in kinds:
        alone = True
        message = f"no node of the cluster has an accelerator {resources.accelerator!r}."
        yield ("accelerator",), message, nearest(resources.accelerator, kinds)
    most = max(place.memory_bytes for place in places)
    if resources.memory_bytes and resources.memory_bytes > most:
        alone = True
        yield ("memory",), f"a worker asks for {resources.memory}; the largest node has {most / 1e9:.3g}GB.", ""
    for unit, asked, there in (
        ("gpu", resources.gpu, max(place.gpus for place in places)),
        ("cpu", resources.cpu, max(place.cpus for place in places)),
    ):
        if asked > there:
            alone = True
            message = f"a worker asks for {asked:g} {unit.upper()}s; the largest node has {there:g}."
            hint = f"Lower `resources.{unit}`; a trial of several `workers` may lie over several nodes."
            yield (unit,), message, hint
    if not alone:
        yield (), "no single node of the cluster has all of pool, labels, accelerator, memory, CPUs and GPUs.", ""


def most_trials(resources: Resources, places: Iterable[Place]) -> int:
    """How many trials the nodes could hold at once, were they empty: a worker has all of its resources on one node."""
    return sum(_workers(resources, place) for place in places) // resources.workers


def _workers(resources: Resources, place: Place) -> int:
    if not _may_run(resources, place):
        return 0
    found = math.floor(place.cpus / resources.cpu + SLACK)
    if resources.gpu >= 1:
        found = min(found, math.floor(place.gpus / resources.gpu))
    elif resources.gpu:  # a fraction is one GPU's, whatever is left of others
        found = min(found, math.floor(place.gpus) * math.floor(1 / resources.gpu + SLACK))
    if resources.memory_bytes:
        found = min(found, place.memory_bytes // resources.memory_bytes)
    return found


def _has_all(resources: Resources, place: Place) -> bool:
    return _workers(resources, place) > 0


def _may_run(resources: Resources, place: Place) -> bool:
    return (
        (resources.pool or "") == place.labels.get(POOL_LABEL, "")
        and all(meets(selector, place.labels.get(label)) for label, selector in selectors_of(resources).items())
        and (not resources.accelerator or resources.accelerator in place.accelerators)
    )
