"""One sweep file out of several: `extends`, a profile, and `--set`, merged so that every value keeps its place.

Mappings merge key by key, with three exceptions that are replaced whole: a parameter, a slot in which another method
is named, and lists. What comes later wins: the first base, further bases, the file itself, its profile, `--set`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path as FilePath
from typing import Any

from orchestrator.errors import BadInput, Complaint
from orchestrator.spec.aliases import translate
from orchestrator.spec.document import Document, Path, expect_mapping, parse_document
from workloads.errors import nearest

MAX_FILES = 50

Read = Callable[[FilePath], str]


def compose(path: FilePath, read: Read, *, profile: str | None = None, assignments: Sequence[str] = ()) -> Document:
    """The sweep file at `path` with its bases, `profile` and `assignments` (`key=value`) merged in.

    Args:
        read: gives a file's text, or raises BadInput.

    Raises:
        BadInput: a file is wrong or missing, bases form a circle, there is no such profile, an assignment is none.
    """
    document = _with_bases(path, read, ())
    profiles = document.data.pop("profiles", None) or {}
    if profile is not None:
        if not isinstance(profiles, dict) or profile not in profiles:
            known = list(profiles) if isinstance(profiles, dict) else []
            raise BadInput([Complaint(f"there is no profile {profile!r}.", str(path), hint=nearest(profile, known))])
        if not isinstance(profiles[profile], dict):
            message = f"the profile {profile!r} is no mapping; it is laid over the file's own sections."
            raise BadInput([document.complaint(("profiles", profile), message)])
        overlay = Document(document.source, profiles[profile], *_below(document, ("profiles", profile)))
        translate(overlay)
        _merge(document, overlay, (), ())
    for assignment in assignments:
        _assign(document, assignment)
    return document


def _with_bases(path: FilePath, read: Read, trail: tuple[FilePath, ...]) -> Document:
    if path in trail:
        circle = " -> ".join(map(str, (*trail, path)))
        raise BadInput([Complaint(f"`extends` goes in a circle: {circle}.", str(trail[-1]))])
    if len(trail) >= MAX_FILES:
        raise BadInput([Complaint(f"`extends` is nested deeper than {MAX_FILES} files.", str(path))])
    document = parse_document(read(path), str(path))
    expect_mapping(document)
    bases = document.data.pop("extends", [])
    names = [bases] if isinstance(bases, str) else bases
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInput([document.complaint(("extends",), "`extends` is a file name or a list of them.")])
    translate(document)
    merged: Document | None = None
    for name in names:
        base = _with_bases(path.parent / name, read, (*trail, path))
        if merged is None:
            merged = base
        else:
            _merge(merged, base, (), ())
    if merged is None:
        return document
    merged.source = document.source
    _merge(merged, document, (), ())
    return merged


def _assign(document: Document, assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    name = f"--set {assignment}"
    if not equals or not key.strip():
        raise BadInput([Complaint("an assignment has the form key=value, as in training.lr=1e-3.", name)])
    value = parse_document(f"value: {text}", name)
    parts = _place(document, key.strip())
    nested: Any = value.data["value"] if isinstance(value.data, dict) else None
    for part in reversed(parts):
        nested = {part: nested}
    overlay = Document(value.source, nested)
    where = value.values[("value",)]
    for length in range(1, len(parts) + 1):
        overlay.keys[parts[:length]] = overlay.values[parts[:length]] = where
    translate(overlay)
    _merge(document, overlay, (), ())


def _place(document: Document, key: str) -> tuple[str, ...]:
    """Where `--set key` points: a section of the file, else into `workload`; a parameter's name is one key."""
    parts = tuple(key.split("."))
    if parts[0] == "parameters":
        return ("parameters", key.removeprefix("parameters."))
    if parts[0] in ("task", "model", "training"):
        # A parameter would overwrite what is set below it: setting it fixes it.
        if isinstance(document.data.get("parameters"), dict) and key in document.data["parameters"]:
            return ("parameters", key)
        return ("workload", *parts)
    return parts


def _merge(below: Document, above: Document, path: Path, source: Path) -> None:
    """Lay what stands at `source` in `above` over `path` in `below`."""
    if path == () and not isinstance(below.data, dict):
        below.data, below.keys, below.values = above.data, above.keys, above.values
        return
    lower, upper = _get(below.data, path), _get(above.data, source)
    if not isinstance(upper, dict) or not isinstance(lower, dict) or _replaces(lower, upper, path):
        _replace(below, above, path, source)
        return
    for key in upper:
        if key in lower:
            _merge(below, above, (*path, key), (*source, key))
        else:
            lower[key] = None
            _replace(below, above, (*path, key), (*source, key))


def _replaces(lower: dict[str, Any], upper: dict[str, Any], path: Path) -> bool:
    is_parameter = len(path) == 2 and path[0] == "parameters"
    return is_parameter or ("name" in upper and path != () and upper["name"] != lower.get("name"))


def _replace(below: Document, above: Document, path: Path, source: Path) -> None:
    holder = _get(below.data, path[:-1])
    holder[path[-1]] = _get(above.data, source)
    for mine, theirs in ((below.keys, above.keys), (below.values, above.values)):
        for old in [old for old in mine if old[: len(path)] == path]:
            del mine[old]
        for new in [new for new in theirs if new[: len(source)] == source]:
            mine[path + new[len(source) :]] = theirs[new]


def _below(document: Document, path: Path) -> tuple[dict[Path, Any], dict[Path, Any]]:
    def cut(table: dict[Path, Any]) -> dict[Path, Any]:
        return {place[len(path) :]: found for place, found in table.items() if place[: len(path)] == path}

    return cut(document.keys), cut(document.values)


def _get(data: Any, path: Path) -> Any:
    for part in path:
        data = data[part]
    return data
