"""One trial's configuration: the fixed workload with the trial's own values put in. Pure.

Options that stand beside a `name` belong to that method. When a parameter picks another method, options that the
other one does not have are left out; so are parameters that a trial's method does not have, as `router.capacity`
where the router has none. A parameter that no variant has is an error, found when the file is loaded.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from workloads.catalog import REGISTRIES
from workloads.config import TrialConfig, known_keys
from workloads.errors import ConfigError

Assignment = Mapping[str, Any]


class UnknownParameter(ValueError):
    """The workload has no such place. `known`: dotted names that it has."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.known = tuple(known)
        super().__init__(name)


@dataclass(frozen=True, slots=True)
class Resolved:
    """config: plain data that `TrialConfig.parse` takes. params: the assignments that apply."""

    config: dict[str, Any]
    params: dict[str, Any]


class Resolver:
    """Puts assignments into one workload.

    What a place may hold depends on the methods chosen around it, and few assignments choose methods: the workload
    with its methods chosen (a structure) is worked out once and kept, which makes a plan of ten thousand cells cheap.
    """

    def __init__(self, workload: Mapping[str, Any]) -> None:
        self.workload = workload
        self._structures: dict[str, _Structure] = {}

    def resolve(self, assignment: Assignment, *, lenient: bool = False) -> Resolved:
        """Put every value of `assignment` at its dotted place in a copy of the workload.

        Args:
            lenient: leave out parameters that do not apply, instead of raising.

        Raises:
            UnknownParameter: a dotted name leads nowhere.
        """
        structure = self.structure(assignment, lenient=lenient)
        config = _copied(structure.config)
        params = {}
        for name, value in assignment.items():
            if is_structural(name, value):
                if name in structure.params:
                    params[name] = value
            elif structure.has(name):
                _holder(config, _parts(name)[:-1], structure)[_parts(name)[-1]] = value
                params[name] = value
            elif not lenient:
                raise UnknownParameter(name, structure.known)
        return Resolved(config, params)

    def structure(self, assignment: Assignment, *, lenient: bool = True) -> _Structure:
        """The workload with the structural part of `assignment` put in."""
        chosen = {name: value for name, value in assignment.items() if is_structural(name, value)}
        key = json.dumps(chosen, sort_keys=True)
        if key not in self._structures:
            self._structures[key] = _build(self.workload, chosen, lenient=lenient)
        return self._structures[key]


@dataclass(frozen=True, slots=True)
class _Structure:
    """config: the workload with methods chosen. params: names of the choices that applied.

    document: the same with every default written out; of the default workload where it is not valid by itself.
    keys: by dotted path of each mapping, the keys that it may have.
    """

    config: dict[str, Any]
    params: frozenset[str]
    document: dict[str, Any]
    keys: Mapping[str, Iterable[str]]

    def has(self, name: str) -> bool:
        path, _, key = name.rpartition(".")
        return key in self.keys.get(path, ())

    @property
    def known(self) -> list[str]:
        """Every dotted name that could be swept."""
        return [f"{path}.{key}" for path, names in self.keys.items() if path for key in names]


def resolve(workload: Mapping[str, Any], assignment: Assignment, *, lenient: bool = False) -> Resolved:
    """See `Resolver.resolve`; for a single assignment."""
    return Resolver(workload).resolve(assignment, lenient=lenient)


def is_structural(name: str, value: Any) -> bool:
    """The value picks a method or is a section, so that other places come and go with it."""
    last = name.rpartition(".")[2]
    return last == "name" or isinstance(value, Mapping | list) or last in REGISTRIES or last.isdecimal()


def _build(workload: Mapping[str, Any], chosen: Assignment, *, lenient: bool) -> _Structure:
    config = copy.deepcopy(dict(workload))
    applied = set()
    for name in sorted(chosen, key=_outer_first):
        try:
            _choose(config, name, chosen[name])
        except UnknownParameter:
            if not lenient:
                raise
        else:
            applied.add(name)
    document = _document(config)
    return _Structure(config, frozenset(applied), document, known_keys(document))


def _outer_first(name: str) -> tuple[int, bool, str]:
    """Outer before inner, and within a mapping its `name` before its options."""
    return name.count("."), not name.endswith(".name"), name


def _choose(config: dict[str, Any], name: str, value: Any) -> None:
    parts = _parts(name)
    around = _Structure(config, frozenset(), document := _document(config), known_keys(document))
    holder = _holder(config, parts[:-1], around)
    last = parts[-1]
    if isinstance(holder, list):
        if not isinstance(last, int) or last >= len(holder):
            raise UnknownParameter(name, around.known)
    elif not around.has(name):
        raise UnknownParameter(name, around.known)
    if last == "name":
        _drop_foreign_options(holder, parts, value)
    holder[last] = copy.deepcopy(value)


def _drop_foreign_options(holder: dict[str, Any], parts: list[Any], method: Any) -> None:
    slot = next((part for part in reversed(parts[:-1]) if isinstance(part, str)), "")
    methods = REGISTRIES.get(slot, {})
    if isinstance(method, str) and method in methods and holder.get("name") != method:
        for key in [key for key in holder if key not in methods[method].fields]:
            del holder[key]


def _holder(config: dict[str, Any], parts: list[Any], structure: _Structure) -> Any:
    """The mapping or list at `parts`: made where the workload leaves it to its default, a bare name written out."""
    here: Any = config
    default: Any = structure.document
    for part in parts:
        default = _child(default, part)
        if _child(here, part) is None:
            if not isinstance(default, Mapping) or not isinstance(here, dict):
                raise UnknownParameter(".".join(map(str, parts)), structure.known)
            here[part] = {"name": default["name"]} if "name" in default else {}
        elif isinstance(here[part], str):
            here[part] = {"name": here[part]}
        here = here[part]
        if not isinstance(here, dict | list):
            raise UnknownParameter(".".join(map(str, parts)), structure.known)
    return here


def _child(node: Any, part: Any) -> Any:
    try:
        return node[part]
    except (KeyError, IndexError, TypeError):
        return None


def _copied(node: Any) -> Any:
    """Plain data anew: a third of what copy.deepcopy takes, which is asked once a cell."""
    if isinstance(node, dict):
        return {key: _copied(value) for key, value in node.items()}
    return [_copied(value) for value in node] if isinstance(node, list) else node


def _parts(name: str) -> list[Any]:
    return [int(part) if part.isdecimal() else part for part in name.split(".")]


def _document(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every default written out. A value that is wrong by itself is told elsewhere; here only the places count."""
    try:
        return TrialConfig.parse(config).document()
    except ConfigError:
        return _merged(TrialConfig.parse({}).document(), config)


def _merged(default: Any, config: Any) -> Any:
    """`config` over `default`, where they choose the same method."""
    if not isinstance(default, Mapping) or not isinstance(config, Mapping):
        return copy.deepcopy(config)
    if config.get("name", default.get("name")) != default.get("name"):
        return copy.deepcopy(dict(config))
    return {key: _merged(default[key], config[key]) if key in config else default[key] for key in default} | {
        key: config[key] for key in config if key not in default
    }
