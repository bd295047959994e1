"""Words of W&B and Determined that mean the same as ours: read, and moved to where ours stand.

W&B: https://docs.wandb.ai/models/sweeps (method, run_cap, early_terminate.min_iter/eta, description).
Determined: experiment configuration reference (hyperparameters, searcher, smaller_is_better, slots_per_trial).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.errors import BadInput, Complaint
from orchestrator.spec.document import Document, Path
from orchestrator.spec.model import Parameter

Change = Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


def _goal(smaller_is_better: Any) -> Any:
    if not isinstance(smaller_is_better, bool):
        return smaller_is_better
    return "minimize" if smaller_is_better else "maximize"


def _method(name: Any) -> Any:
    words = {"bayes": "tpe", "single": "grid", "async_halving": "random", "adaptive_asha": "random"}
    return words.get(name, name) if isinstance(name, str) else name


def _stopper(name: Any) -> Any:
    return {"async_halving": "asha", "adaptive_asha": "asha"}.get(name) if isinstance(name, str) else None


MOVES: tuple[tuple[Path, Path, Change], ...] = (
    (("description",), ("notes",), _same),
    (("labels",), ("tags",), _same),
    (("hyperparameters",), ("parameters",), _same),
    (("method",), ("search", "method"), _method),
    (("run_cap",), ("search", "max_trials"), _same),
    (("max_trials",), ("search", "max_trials"), _same),
    (("max_concurrent_trials",), ("resources", "max_concurrent"), _same),
    (("max_concurrent",), ("resources", "max_concurrent"), _same),
    (("max_restarts",), ("retries",), _same),
    (("budget", "max_trials"), ("search", "max_trials"), _same),
    (("budget", "run_cap"), ("search", "max_trials"), _same),
    (("budget", "max_concurrent"), ("resources", "max_concurrent"), _same),
    (("budget", "max_concurrent_trials"), ("resources", "max_concurrent"), _same),
    (("budget", "max_restarts"), ("retries",), _same),
    (("searcher", "max_time"), ("budget", "wall_clock"), _same),
    (("reproducibility", "experiment_seed"), ("search", "seed"), _same),
    (("searcher", "name"), ("early_terminate", "type"), _stopper),
    (("searcher", "name"), ("search", "method"), _method),
    (("searcher", "metric"), ("metric", "name"), _same),
    (("searcher", "smaller_is_better"), ("metric", "goal"), _goal),
    (("searcher", "max_trials"), ("search", "max_trials"), _same),
    (("searcher", "max_concurrent_trials"), ("resources", "max_concurrent"), _same),
    (("searcher", "divisor"), ("early_terminate", "reduction_factor"), _same),
    (("metric", "smaller_is_better"), ("metric", "goal"), _goal),
    (("early_terminate", "min_iter"), ("early_terminate", "grace_steps"), _same),
    (("early_terminate", "grace_period"), ("early_terminate", "grace_steps"), _same),
    (("early_terminate", "eta"), ("early_terminate", "reduction_factor"), _same),
    (("early_terminate", "divisor"), ("early_terminate", "reduction_factor"), _same),
    (("resources", "gpus_per_trial"), ("resources", "gpu"), _same),
    (("resources", "slots_per_trial"), ("resources", "gpu"), _same),
    (("resources", "cpus_per_trial"), ("resources", "cpu"), _same),
    (("resources", "max_slots"), ("resources", "max_concurrent"), _same),
    (("resources", "workers_per_trial"), ("resources", "workers"), _same),
    (("resources", "resource_pool"), ("resources", "pool"), _same),
    (("resources", "accelerator_type"), ("resources", "accelerator"), _same),
    (("resources", "label_selector"), ("resources", "labels"), _same),
    (("resources", "priority"), ("priority",), _same),
)
"""From where, to where, and how the value changes; None from a change means that there is nothing to say there."""

PARAMETER_WORDS = {"vals": "values", "minval": "min", "maxval": "max", "val": "value"}
PARAMETER_TYPES = {"int": "int_uniform", "double": "uniform", "categorical": None, "const": None}
DISTRIBUTIONS = ("constant", "categorical", "log_uniform")
PARAMETER_FIELDS = frozenset(Parameter.model_fields) | PARAMETER_WORDS.keys() | {"type", "base"}
SECTIONS = ("task", "model", "training")
"""Of a workload: below their names in `parameters`, names may stand nested instead of dotted."""


def translate(document: Document) -> None:
    """Move aliased words of `document` to ours, each with its place.

    Raises:
        BadInput: an alias and the word that it stands for are both there.
    """
    if not isinstance(document.data, dict):
        return
    complaints: list[Complaint] = []
    moved: list[Path] = []
    for old, new, change in MOVES:
        value = _at(document.data, old)
        if value is _ABSENT or (result := change(value)) is None:
            continue
        if _at(document.data, new) is not _ABSENT:
            here, there = ".".join(map(str, old)), ".".join(map(str, new))
            message = f"`{here}` says the same as `{there}`, which stands here too."
            complaints.append(document.complaint(old, message, "Keep one of them.", at_key=True))
            continue
        if not _put(document, old, new, result):
            continue
        moved.append(old)
    for old in dict.fromkeys(moved):
        _remove(document.data, old)
    for section in ("searcher", "reproducibility"):
        left = document.data.get(section)
        if isinstance(left, dict):
            complaints += [_without_counterpart(document, (section, key)) for key in left]
            del document.data[section]
    complaints += _flatten_parameters(document)
    _translate_parameters(document)
    if complaints:
        raise BadInput(complaints)


def _without_counterpart(document: Document, path: Path) -> Complaint:
    read = [".".join(map(str, old)) for old, _, _ in MOVES if old[0] == path[0]]
    message = f"`{'.'.join(map(str, path))}` says nothing here."
    return document.complaint(path, message, f"Read are: {', '.join(dict.fromkeys(read))}.", at_key=True)


def _flatten_parameters(document: Document) -> list[Complaint]:
    """Nested names become dotted ones, each with its place: `training: {lr: …}` is `training.lr`.

    W&B nests below the word `parameters`, Determined without it.
    """
    parameters = document.data.get("parameters")
    if not isinstance(parameters, dict):
        return []
    complaints: list[Complaint] = []
    flat: dict[Any, Any] = {}

    def visit(name: Any, value: Any, path: Path) -> None:
        nested = isinstance(value, dict) and value and not value.keys() & PARAMETER_FIELDS
        if nested and (name in SECTIONS or len(path) > 2):
            for key, below in value.items():
                visit(name if key == "parameters" else f"{name}.{key}", below, (*path, key))
            return
        if len(path) > 2:
            document.move(path, ("parameters", name), value)
            if name in flat or name in parameters:
                complaints.append(document.complaint(("parameters", name), f"{name!r} is given twice.", at_key=True))
        flat[name] = value

    for name, value in list(parameters.items()):
        visit(name, value, ("parameters", name))
    document.data["parameters"] = flat
    return complaints


def _translate_parameters(document: Document) -> None:
    parameters = document.data.get("parameters")
    if not isinstance(parameters, dict):
        return
    for name, words in parameters.items():
        if not isinstance(words, dict):
            continue
        for old, new in PARAMETER_WORDS.items():
            if old in words and new not in words:
                _put(document, ("parameters", name, old), ("parameters", name, new), words[old])
                del words[old]
        kind = words.get("type")
        if isinstance(kind, str) and kind in PARAMETER_TYPES:
            del words["type"]
            if PARAMETER_TYPES[kind] and "distribution" not in words:
                words["distribution"] = PARAMETER_TYPES[kind]
        elif kind == "log" and all(_is_exponent(words.get(key)) for key in ("min", "max")):
            # Determined gives a log range by its exponents.
            del words["type"]
            base = words.pop("base", 10.0)
            _from_exponents(words, base if _is_exponent(base) and base > 0 else 10.0)
        if words.get("distribution") in ("constant", "categorical"):
            del words["distribution"]
        elif words.get("distribution") == "log_uniform" and all(_is_exponent(words.get(key)) for key in ("min", "max")):
            # So does W&B, in distinction to log_uniform_values
            _from_exponents(words, math.e)


def _from_exponents(words: dict[str, Any], base: float) -> None:
    words |= {"distribution": "log_uniform_values", "min": base ** words["min"], "max": base ** words["max"]}


def _is_exponent(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 100


_ABSENT = object()


def _at(data: Any, path: Path) -> Any:
    for part in path:
        if not isinstance(data, Mapping) or part not in data:
            return _ABSENT
        data = data[part]
    return data


def _put(document: Document, old: Path, new: Path, value: Any) -> bool:
    """False where something that is no mapping stands in the way; its own complaint follows later."""
    here = document.data
    for depth, part in enumerate(new[:-1], start=1):
        here = here.setdefault(part, {})
        document.values.setdefault(new[:depth], document.values[old])
        if not isinstance(here, dict):
            return False
    here[new[-1]] = value
    document.move(old, new, value)
    return True


def _remove(data: dict[str, Any], path: Path) -> None:
    for part in path[:-1]:
        data = data[str(part)]
    data.pop(str(path[-1]), None)
