"""Which nodes of a cluster a trial's workers may run on. Pure.

Selectors are Ray's: `big`, `!big`, `in(a, b)`, `!in(a, b)` for the value of a node's label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.records import Place
from orchestrator.spec.operations import Resources
from workloads.errors import nearest

POOL_LABEL = "pool"


def selectors_of(resources: Resources) -> dict[str, str]:
    """By label, the selector that a node must meet."""
    return dict(resources.labels) | ({POOL_LABEL: resources.pool} if resources.pool else {})


def meets(selector: str, value: str | None) -> bool:
    """Whether a node whose label has this value (None: it has no such label) meets a selector."""
    wanted = selector.strip().removeprefix("!")
    values = wanted.removeprefix("in(").removesuffix(")").split(",") if wanted.startswith("in(") else [wanted]
    found = value is not None and value in {each.strip() for each in values}
    return not found if selector.strip().startswith("!") else found


def lacking(resources: Resources, places: Sequence[Place]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """What no node of the cluster has: (key within `resources`, message, hint), nothing where one node has it all."""
    if not places or any(_has_all(resources, place) for place in places):
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
    if not alone:
        yield (), "no single node of the cluster has all of pool, labels, accelerator and memory.", ""


def _has_all(resources: Resources, place: Place) -> bool:
    return (
        all(meets(selector, place.labels.get(label)) for label, selector in selectors_of(resources).items())
        and (not resources.accelerator or resources.accelerator in place.accelerators)
        and (resources.memory_bytes or 0) <= place.memory_bytes
    )
