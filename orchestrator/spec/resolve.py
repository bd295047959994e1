"""One trial's configuration: the fixed workload with the trial's own values put in. Pure.

Options that stand beside a `name` belong to that method. When a parameter picks another method, options that the
other one does not have are left out; so are parameters that a trial's method does not have, as `router.capacity`
where the router has none. A parameter that no variant has is an error, found when the file is loaded.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from workloads.catalog import REGISTRIES
from workloads.config import TrialConfig, known_keys
from workloads.errors import ConfigError

Assignment = Mapping[str, Any]

SLOTS = {"task": "task", "mixer": "mixer", "feedforward": "feedforward", "router": "router"}


class UnknownParameter(ValueError):
    """The workload has no such place. `known`: dotted names that it has."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.known = tuple(known)
        super().__init__(name)


class NotApplicable(UnknownParameter):
    """The place belongs to a method that this trial does not use."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """config: plain data that `TrialConfig.parse` takes. params: the assignments that apply."""

    config: dict[str, Any]
    params: dict[str, Any]


def resolve(workload: Mapping[str, Any], assignment: Assignment, *, lenient: bool = False) -> Resolved:
    """Put every value of `assignment` at its dotted place in a copy of `workload`.

    Args:
        lenient: leave out parameters that do not apply, instead of raising.

    Raises:
        UnknownParameter: a dotted name leads nowhere.
    """
    config = copy.deepcopy(dict(workload))
    params: dict[str, Any] = {}
    for name in sorted(assignment, key=_structure_first):
        try:
            _put(config, name, assignment[name])
        except UnknownParameter:
            if not lenient:
                raise
        else:
            params[name] = assignment[name]
    return Resolved(config, {name: params[name] for name in assignment if name in params})


def _structure_first(name: str) -> tuple[int, bool, str]:
    """Outer before inner, and within a mapping its `name` before its options."""
    return name.count("."), not name.endswith(".name"), name


def _put(config: dict[str, Any], name: str, value: Any) -> None:
    parts = [int(part) if part.isdecimal() else part for part in name.split(".")]
    parent = _open(config, parts[:-1], name)
    last = parts[-1]
    if isinstance(parent, list):
        if not isinstance(last, int) or last >= len(parent):
            raise UnknownParameter(name, _dotted(config))
        parent[last] = copy.deepcopy(value)
        return
    path = ".".join(map(str, parts[:-1]))
    keys = known_keys(_named(config)).get(path)
    if keys is None or str(last) not in keys:
        raise UnknownParameter(name, _dotted(config))
    if last == "name":
        _switch(parent, parts, value)
    parent[last] = copy.deepcopy(value)


def _open(config: dict[str, Any], parts: list[str | int], name: str) -> Any:
    """The mapping or list at `parts`, made where the workload left it to its default, a bare name written out."""
    here: Any = config
    for depth, part in enumerate(parts):
        if isinstance(here, list):
            if not isinstance(part, int) or part >= len(here):
                raise UnknownParameter(name, _dotted(config))
            key: Any = part
        elif part not in here:
            default = _at(_default_document(config), parts[: depth + 1])
            if default is None:
                raise UnknownParameter(name, _dotted(config))
            here[part] = {"name": default["name"]} if "name" in default else {}
            key = part
        else:
            key = part
        if isinstance(here[key], str):
            here[key] = {"name": here[key]}
        here = here[key]
        if not isinstance(here, dict | list):
            raise UnknownParameter(name, _dotted(config))
    return here


def _switch(parent: dict[str, Any], parts: list[str | int], method: Any) -> None:
    """Drop the options that the newly named method does not have."""
    slot = next((part for part in reversed(parts[:-1]) if isinstance(part, str)), "")
    methods = REGISTRIES.get(slot, {})
    if isinstance(method, str) and method in methods and parent.get("name") != method:
        for key in [key for key in parent if key not in methods[method].fields]:
            del parent[key]


def _default_document(config: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return TrialConfig.parse(config).document()
    except ConfigError:
        return TrialConfig.parse({}).document()


def _named(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the names of the slots that it leaves to their defaults."""
    named = copy.deepcopy(dict(config))
    defaults = _default_document(config)
    named.setdefault("task", {"name": defaults["task"]["name"]})
    model = named.setdefault("model", {})
    if isinstance(model, dict):
        for slot in ("mixer", "feedforward"):
            default = defaults["model"][slot]
            if isinstance(default, dict):
                model[slot] = model.get(slot) if isinstance(model.get(slot), dict) else {"name": default["name"]}
                node = model[slot]
                if isinstance(node, dict) and "router" in default:
                    node.setdefault("router", {"name": default["router"]["name"]})
    return named


def _at(document: Any, parts: list[str | int]) -> Any:
    for part in parts:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return None
    return document if isinstance(document, Mapping) else None


def _dotted(config: Mapping[str, Any]) -> list[str]:
    keys = known_keys(_named(config))
    return [f"{path}.{key}" for path, names in keys.items() if path for key in names]
