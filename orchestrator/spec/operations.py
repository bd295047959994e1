"""The sections of the sweep file that say how it runs: seeds, limits, resources, what ends a trial, what is first."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.spec.condition import parse_condition
from orchestrator.spec.words import Duration, Pattern, Selector, Size, Words, bytes_of, seconds_of

Seed = Annotated[int, Field(ge=0, lt=2**63)]
RACE_STARTS = 3
"""Seeds that every configuration of a race gets: a paired test on fewer can hardly tell anything apart."""


class Seeds(Words):
    """The seeds of every configuration."""

    count: int | None = Field(None, ge=1, le=1000, description="So many seeds, from `first` on.")
    first: int = Field(0, ge=0, lt=2**62, description="The first of `count` seeds.")
    values: list[Seed] | None = Field(None, min_length=1, max_length=1000, description="The seeds themselves.")
    policy: Literal["all", "race"] = Field(
        "all",
        description="all: every configuration is trained with every seed. race: three seeds each; further ones only "
        "for those that a paired test cannot yet tell from the best, until it can or the seeds are used up.",
    )
    alpha: float = Field(
        0.05, gt=0, lt=1, description="race: chance of telling any two configurations apart that are not different."
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.count is None) == (self.values is None):
            raise ValueError("`seeds` needs `count` or `values`, one of them")
        if self.values is not None and len(set(self.values)) != len(self.values):
            raise ValueError(f"`seeds` has a seed twice: {self.values}")
        if self.policy == "race" and len(self.numbers) < 2:
            raise ValueError("a race needs two seeds or more: with one, nothing can be told apart")
        return self

    @property
    def numbers(self) -> list[int]:
        """All seeds, in the order in which they are used."""
        return self.values if self.values is not None else list(range(self.first, self.first + (self.count or 0)))

    @property
    def planned(self) -> list[int]:
        """Those that every configuration gets."""
        return self.numbers[:RACE_STARTS] if self.policy == "race" else self.numbers


def seeds_of(value: Any) -> Any:
    """Short forms of `seeds`: a count, or a list."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 1000:
            raise ValueError(f"`seeds` as a count must lie between 1 and 1000, got {value}")
        return {"count": value}
    return {"values": value} if isinstance(value, list) else value


def _condition(text: Any) -> Any:
    if isinstance(text, str):
        parse_condition(text)
    return text


class StopRule(Words):
    """A condition on reported metrics under which a trial ends."""

    when: Annotated[str, BeforeValidator(_condition)] = Field(
        description='"moe/dead_frac > 0.25 for 3 reports", "nan(train_loss)": over metrics that trials report.'
    )
    rewind: Literal["best"] | None = Field(
        None,
        description="best: the trial's result and checkpoint become those of its best report before the condition "
        "held. Left out: it ends as it stands.",
    )


def stop_rules_of(value: Any) -> Any:
    """Short forms of `stop_if`: one condition, or a list of them."""
    rules = value if isinstance(value, list) else [] if value is None else [value]
    return [{"when": rule} if isinstance(rule, str) else rule for rule in rules]


class Budget(Words):
    """What a sweep may use in all. Whatever is used up first ends it; what has a result keeps it."""

    gpu_hours: float | None = Field(None, gt=0, description="Hours of GPUs that its trials hold, added up.")
    cpu_hours: float | None = Field(None, gt=0, description="Hours of CPUs that its trials hold, added up.")
    wall_clock: Duration | None = Field(None, description='Time since its first start: "90m", "24h", "1d12h".')
    patience: int | None = Field(
        None, ge=1, description="It ends after so many trials in a row without a better configuration."
    )

    @property
    def wall_clock_s(self) -> float | None:
        """In seconds."""
        return None if self.wall_clock is None else seconds_of(self.wall_clock)


class Resources(Words):
    """What one trial takes, and where it may run."""

    workers: int = Field(1, ge=1, description="Processes that train one trial together (data parallel).")
    cpu: float = Field(1, gt=0, description="CPUs a worker.")
    gpu: float = Field(0, ge=0, description="GPUs a worker; a fraction shares a GPU. Left out: none.")
    memory: Size | None = Field(
        None,
        description='Memory a worker, "16GB": what a node must have to give; a trial that takes more is ended.',
    )
    pool: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="On nodes with the Ray label `pool` of this value, or a custom resource `pool:VALUE`; left out: on "
        "nodes of no pool.",
    )
    accelerator: str | None = Field(None, min_length=1, description="Only on this kind of GPU, as Ray names it: A100.")
    labels: dict[str, Selector] = Field(
        default_factory=dict, description='Only on nodes whose Ray labels match: {region: "in(eu, us)", disk: "!hdd"}.'
    )
    max_concurrent: int | None = Field(None, ge=1, description="At most so many trials at once.")

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.gpu > 1 and self.gpu != int(self.gpu):
            raise ValueError(f"gpu above 1 must be a whole number, got {self.gpu:g}")
        if self.accelerator and not self.gpu:
            raise ValueError(f"accelerator {self.accelerator} is a kind of GPU, but `gpu` is 0")
        return self

    @property
    def memory_bytes(self) -> int | None:
        """Of a worker."""
        return None if self.memory is None else bytes_of(self.memory)


def code_of(value: Any) -> Any:
    """Short form of `code`: a path."""
    return {"path": value} if isinstance(value, str) else value


class Code(Words):
    """The sweep's own code. Its driver and workers find it before what is installed; no other sweep sees it."""

    path: str | None = Field(
        None, min_length=1, description="A module's file, or a directory of modules, beside the sweep file."
    )
    package: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="What `orch submit` makes of `path`: the hash of its content."
    )
    imports: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")]] = Field(
        default_factory=list, max_length=100, description="Modules that each worker imports before it trains."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.path is None) == (self.package is None):
            raise ValueError("give `path`, the file or directory of your code")
        return self


def _variables(value: Any) -> Any:
    if isinstance(value, Mapping):
        for name in value:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name)):
                raise ValueError(f"{name!r} is no name of a variable")
            if str(name).startswith(OWN_VARIABLES):
                raise ValueError(f"{name} is not for sweeps to set: orch and Ray need it themselves")
        return {str(name): str(each) if isinstance(each, int | float) else each for name, each in value.items()}
    return value


def has_its_own(spec: Mapping[str, Any]) -> str:
    """A hash of the code and the variables that a recorded sweep brings itself; "" where it brings none."""
    own = {name: spec[name] for name in ("code", "environment") if spec.get(name)}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest() if own else ""


OWN_VARIABLES = ("ORCH_", "RAY_", "PYTHON", "LD_", "PATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

Environment = Annotated[dict[str, Annotated[str, Field(max_length=10_000)]], BeforeValidator(_variables)]


ACTIONS = {"cancel_retries": "no_retry"}


class LogPolicy(Words):
    """What a line of a failed trial's log means for it."""

    pattern: Pattern = Field(min_length=1, description='A regular expression: "CUDA out of memory".')
    action: Annotated[Literal["no_retry", "exclude_node"], BeforeValidator(lambda word: ACTIONS.get(word, word))] = (
        Field(
            description="no_retry: it is not started again. exclude_node: the sweep leaves the node where it "
            "happened, and the trial starts again elsewhere, at no cost to its restarts."
        )
    )


class Hypothesis(Words):
    """What is claimed before anything has run: sealed with its time and hash when the sweep is submitted."""

    claim: str = Field(min_length=1, max_length=2_000, description="The claim, in a sentence.")
    metric: str | None = Field(None, min_length=1, description="What decides it; the sweep's metric when left out.")
    comparison: str | None = Field(
        None, min_length=1, max_length=1_000, description="What is compared with what: `loss_free < topk`."
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Chance of finding it true where it is not.")


def references_of(value: Any) -> Any:
    """A sweep or several, by name or number."""
    many = value if isinstance(value, list) else [] if value is None else [value]
    return [str(each) if isinstance(each, int) and not isinstance(each, bool) else each for each in many]


_BEST_OF = re.compile(r"best of (\S+)")


def best_of(text: str) -> str:
    """The sweep that `best of SWEEP` names.

    Raises:
        ValueError: it has another form.
    """
    match = _BEST_OF.fullmatch(" ".join(text.split()))
    if match is None:
        raise ValueError(f"{text!r} is not of the form `best of SWEEP`, with the name or number of a sweep")
    return match[1]


def _start(text: Any) -> Any:
    if isinstance(text, str):
        best_of(text)
    return text


StartFrom = Annotated[str, BeforeValidator(_start)]
