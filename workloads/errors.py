"""What may be wrong with a trial's configuration, said so that it can be mended. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import pydantic

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    path: where, as keys and indices from the root of the document.
    message: what is wrong and, where it is known, what was expected.
    hint: how to mend it; "" where there is no better advice than the message.
    at_key: the key is wrong, not its value.
    """

    path: Path
    message: str
    hint: str = ""
    at_key: bool = False

    def __str__(self) -> str:
        where = ".".join(map(str, self.path)) or "configuration"
        return f"{where}: {self.message}" + (f" {self.hint}" if self.hint else "")


class ConfigError(ValueError):
    """A configuration that no trial can run. `problems` holds all of them, in document order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def nearest(name: object, known: Iterable[str]) -> str:
    """Advice for an unknown name: the nearest valid one, then the others (the ten nearest where there are many)."""
    names = sorted(known)
    near = get_close_matches(str(name), names, n=10, cutoff=0.5)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    if len(names) > 20:
        others = ", ".join(near[1:] or names[:10])
        return f"{guess}{'Near' if near[1:] else 'Known'}: {others}, … ({len(names)} in all)."
    return f"{guess}Known: {', '.join(names)}." if names else ""


def problems_of(error: pydantic.ValidationError, document: object, known: Mapping[str, Iterable[str]]) -> list[Problem]:
    """pydantic's complaints about `document` as problems with paths into the document itself.

    pydantic puts the tag of a union member into its locations ("router", "topk", "k"); the document has no such
    key, so tags are taken out. `known` gives, by the dotted path of a mapping, the keys that it may have.
    """
    problems = []
    for item in error.errors(include_url=False):
        path = _without_tags(item["loc"], document)
        got = item.get("input")
        kind = item["type"]
        if kind in ("extra_forbidden", "unexpected_keyword_argument"):
            allowed = known.get(".".join(map(str, path[:-1])), ())
            problems.append(Problem(path, f"unknown key {path[-1]!r}.", nearest(path[-1], allowed), at_key=True))
        elif kind == "union_tag_invalid":
            context = item.get("ctx", {})
            tags = [tag.strip(" '") for tag in str(context.get("expected_tags", "")).split(",")]
            tag = context.get("tag")
            problems.append(Problem((*path, "name"), f"{tag!r} is not a known name.", nearest(tag, tags)))
        elif kind == "union_tag_not_found":
            problems.append(Problem(path, f"expected a mapping with a `name`, got {_short(got)}."))
        elif kind in ("missing", "missing_keyword_only_argument", "missing_argument"):
            problems.append(Problem(path[:-1], f"{path[-1]!r} is missing."))
        elif kind == "value_error":
            problems.append(Problem(path, f"{item['ctx']['error']}."))
        else:
            problems.append(Problem(path, f"{_lower(item['msg'])}, got {_short(got)}."))
    return problems


def _without_tags(location: Sequence[str | int], document: object) -> Path:
    path: list[str | int] = []
    here = document
    for part in location:
        if isinstance(part, str) and (part.startswith(("(", "function-")) or _is_tag(part, here)):
            continue
        path.append(part)
        here = _child(here, part)
    return tuple(path)


def _is_tag(part: str, here: object) -> bool:
    name = here.get("name") if isinstance(here, Mapping) else here
    return name == part and not (isinstance(here, Mapping) and part in here)


def _child(node: object, part: str | int) -> object:
    if isinstance(node, Mapping):
        return node.get(part)
    if isinstance(node, Sequence) and not isinstance(node, str) and isinstance(part, int) and part < len(node):
        return node[part]
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


class WorkloadError(Exception):
    """A trial cannot go on, for a reason that its owner can act on."""


class TrialDiverged(WorkloadError):
    """The loss, the gradient or the validation metric left the finite numbers, or the loss ran away.

    step: the training step at which it was seen first; `reason`: what was seen. The last good checkpoint stays.
    """

    def __init__(self, step: int, reason: str) -> None:
        self.step = step
        self.reason = reason
        super().__init__(f"diverged at step {step}: {reason}. Lower training.lr, or raise training.warmup_steps.")

    def __reduce__(self) -> tuple[type, tuple[int, str]]:
        # Exceptions travel between processes pickled by `args`, which here is the whole message
        return type(self), (self.step, self.reason)


class CheckpointError(WorkloadError):
    """A checkpoint that cannot be used: none there, damaged, or of another model or task."""


class DataError(WorkloadError):
    """Data that are not there or not what they should be; the message tells how to get them."""
