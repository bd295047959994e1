"""From the text of a sweep file to a checked SweepSpec, or all that is wrong with it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pydantic

from orchestrator.errors import BadInput, Complaint
from orchestrator.spec import options
from orchestrator.spec.aliases import translate
from orchestrator.spec.document import Document, Path, expect_mapping, parse_document
from orchestrator.spec.model import Metric, Parameter, SweepSpec
from orchestrator.spec.resolve import Assignment, Resolver, UnknownParameter, is_structural
from orchestrator.spec.words import Words
from workloads.config import TrialConfig
from workloads.errors import ConfigError, Problem, nearest, problems_of
from workloads.reported import FAMILIES, reported_metrics

MOST_COMPLAINTS = 50
"""About parameters: each takes a search through the workload, and nobody reads more."""
MAX_STRUCTURES = 500
"""Combinations of methods that are tried to find a place for a parameter."""


def load_spec(text: str | bytes, file: str = "sweep.yaml") -> SweepSpec:
    """Parse and check a sweep file that stands for itself.

    Raises:
        BadInput: with all complaints, each with file, line, column and advice.
    """
    return check_document(read_document(text, file))


def read_document(text: str | bytes, file: str) -> Document:
    """The text of a sweep file that stands for itself, its aliases translated; profiles are left out.

    Raises:
        BadInput: it is not YAML, or it extends another file.
    """
    document = parse_document(text, file)
    expect_mapping(document)
    if "extends" in document.data:
        message = "`extends` names files beside this one, which are not here."
        hint = "`orch submit FILE` reads and merges them."
        raise BadInput([document.complaint(("extends",), message, hint, at_key=True)])
    translate(document)
    document.data.pop("profiles", None)
    return document


def check_document(document: Document) -> SweepSpec:
    """A document as a spec.

    The metric's default is filled in. Every value of every parameter has been tried on the workload, one at a time.

    Raises:
        BadInput: with all complaints, each with file, line, column and advice.
    """
    spec = _parsed(document)
    complaints = [*_base_complaints(spec, document), *_option_complaints(spec, document)]
    if not complaints:
        found = itertools.chain(_parameter_complaints(spec, document), _list_complaints(spec, document))
        complaints = list(itertools.islice(found, MOST_COMPLAINTS))
    if complaints:
        raise BadInput(complaints)
    return _with_metric(spec, document)


def _parsed(document: Document) -> SweepSpec:
    expect_mapping(document)
    try:
        return SweepSpec.model_validate(document.data)
    except pydantic.ValidationError as error:
        problems = problems_of(error, document.data, _known_words(document.data))
        raise BadInput([document.complaint(p.path, p.message, p.hint, at_key=p.at_key) for p in problems]) from None


def _base_complaints(spec: SweepSpec, document: Document) -> Iterable[Complaint]:
    """What is wrong with the workload as it stands, before any parameter is set."""
    try:
        TrialConfig.parse(spec.workload)
    except ConfigError as error:
        for problem in error.problems:
            path = ("workload", *problem.path)
            if problem.path[:1] == ("seed",):
                yield document.complaint(
                    path, "the seed does not stand in `workload`.", "Use `seeds: [0, 1]` beside it."
                )
            else:
                yield document.complaint(path, problem.message, problem.hint, at_key=problem.at_key)
    if "seed" in spec.workload:
        yield document.complaint(
            ("workload", "seed"), "the seed does not stand in `workload`.", "Use `seeds:` beside it."
        )


def _option_complaints(spec: SweepSpec, document: Document) -> Iterable[Complaint]:
    """Options of the search method and of early stopping, each against what the method has."""
    asked: list[tuple[str, dict[str, Any], str, type[options.Options] | None]]
    asked = [("search", spec.search.options, spec.search.method, options.SEARCH.get(spec.search.method))]
    if rule := spec.early_terminate:
        asked.append(("early_terminate", rule.options, rule.type, options.EARLY_TERMINATE.get(rule.type)))
    for section, given, kind, model in asked:
        takes = model or options.NoOptions
        try:
            takes.model_validate(given)
        except pydantic.ValidationError as error:
            for problem in problems_of(error, given, {"": takes.model_fields}):
                place = (section, "options", *problem.path)
                hint = problem.hint or ("" if takes.model_fields else f"{kind} has no options.")
                yield document.complaint(place, problem.message, hint, at_key=problem.at_key)


def _parameter_complaints(spec: SweepSpec, document: Document) -> Iterable[Complaint]:
    """Each value of each parameter, tried on the workload; a parameter must fit at least one variant of it."""
    resolver = Resolver(spec.workload)
    structural = _structural(spec)
    for name, parameter in spec.parameters.items():
        values = parameter.choices if parameter.choices is not None else _ends(parameter)
        variants = list(_variants(spec, name, structural, resolver))
        if not variants:
            known = resolver.structure({}).known
            message = f"no workload has a parameter {name!r}."
            yield document.complaint(("parameters", name), message, nearest(name, known), at_key=True)
            continue
        for index, value in enumerate(values):
            place = ("parameters", name, "values", index) if parameter.values is not None else ("parameters", name)
            problem = _problem(resolver, {**variants[0], name: value}, name)
            others = itertools.chain(variants[1:], _plain_variants(spec, name, variants[0]))
            if problem and all(
                _problem(resolver, {**variant, name: value}, name)
                for variant in itertools.islice(others, MAX_STRUCTURES)
            ):
                yield document.complaint(place, f"{name} = {value!r}: {problem.message}", problem.hint)


def _list_complaints(spec: SweepSpec, document: Document) -> Iterable[Complaint]:
    """Each assignment of a list search, put into the workload."""
    resolver = Resolver(spec.workload)
    for index, config in enumerate(spec.search.configs):
        place = ("search", "configs", index)
        try:
            TrialConfig.parse(resolver.resolve(config).config)
        except UnknownParameter as error:
            name = str(error)
            message = f"the workload has no {name!r} here."
            yield document.complaint((*place, name), message, nearest(name, error.known), at_key=True)
        except ConfigError as error:
            problem = error.problems[0]
            dotted = ".".join(map(str, problem.path))
            yield document.complaint((*place, dotted), f"{dotted}: {problem.message}", problem.hint)


def _problem(resolver: Resolver, assignment: Assignment, name: str) -> Problem | None:
    try:
        TrialConfig.parse(resolver.resolve(assignment, lenient=True).config)
    except ConfigError as error:
        mine = [problem for problem in error.problems if ".".join(map(str, problem.path)).startswith(name)]
        return (mine or error.problems)[0]
    return None


def _structural(spec: SweepSpec) -> dict[str, list[Any]]:
    """Parameters that choose methods, with their choices: what places there are hangs on them alone."""
    return {
        name: choices
        for name, parameter in spec.parameters.items()
        if (choices := parameter.choices) and any(is_structural(name, value) for value in choices)
    }


def _variants(
    spec: SweepSpec, name: str, structural: Mapping[str, list[Any]], resolver: Resolver
) -> Iterable[Assignment]:
    """Settings of the other parameters that choose methods under which the workload has a place called `name`."""
    choosing = {other: choices for other, choices in structural.items() if other != name}
    variants: list[Assignment] = [{}, *({other: value} for other, choices in choosing.items() for value in choices)]
    if len(choosing) > 1 and math.prod(map(len, choosing.values())) <= MAX_STRUCTURES:
        variants += [dict(zip(choosing, cell, strict=True)) for cell in itertools.product(*choosing.values())]
    picks = _picks(spec, name)
    for variant in variants:
        try:
            resolver.resolve({**variant, **picks} if picks else {**variant, name: None})
        except UnknownParameter:
            continue
        yield variant


def _plain_variants(spec: SweepSpec, name: str, variant: Assignment) -> Iterator[Assignment]:
    """`variant` with each choice of each other parameter: `k: 4` fits where `num_experts` is 8."""
    for other, parameter in spec.parameters.items():
        if other != name and other not in variant:
            for value in parameter.choices or ():
                yield {**variant, other: value}


def _picks(spec: SweepSpec, name: str) -> Assignment:
    """The first choice of a structural parameter; nothing for others, whose place alone counts."""
    choices = spec.parameters[name].choices
    return {name: choices[0]} if choices and is_structural(name, choices[0]) else {}


def _ends(parameter: Any) -> list[Any]:
    if parameter.expr is not None:
        return []
    if parameter.min is not None:
        return [parameter.min, parameter.max]
    return [parameter.mu]


def _with_metric(spec: SweepSpec, document: Document) -> SweepSpec:
    known = reported_metrics(TrialConfig.parse(Resolver(spec.workload).resolve({}).config))
    named: dict[Path, str] = {("metrics", index, "name"): each.name for index, each in enumerate(spec.metrics)}
    if spec.metric is not None and not spec.metrics:
        named = {("metric", "name"): spec.metric.name}
    claimed = spec.hypothesis.metric if spec.hypothesis is not None else None
    if claimed is not None and not claimed.startswith(FAMILIES):
        named["hypothesis", "metric"] = claimed
    complaints = [
        document.complaint(place, f"the workload never reports a metric {name!r}.", nearest(name, known))
        for place, name in named.items()
        if name not in known
    ]
    if complaints:
        raise BadInput(complaints)
    if spec.metric is None and not spec.metrics:
        name, goal = next(iter(known.items()))
        return spec.model_copy(update={"metric": Metric.model_validate({"name": name, "goal": goal})})
    return spec.model_copy(update={"metric": spec.metrics[0]}) if spec.metrics else spec


def _known_words(data: Mapping[str, Any]) -> dict[str, Iterable[str]]:
    """By dotted path of a mapping in the file, the keys that it may have."""
    known: dict[str, Iterable[str]] = {"": SweepSpec.model_fields}
    for name, field in SweepSpec.model_fields.items():
        for section in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(section, type) and issubclass(section, Words):
                known[name] = section.model_fields
                if isinstance(data.get(name), list):
                    known |= {f"{name}.{index}": section.model_fields for index in range(len(data[name]))}
    if isinstance(data.get("parameters"), Mapping):
        known |= {f"parameters.{name}": Parameter.model_fields for name in data["parameters"]}
    return known
