"""Traces for the simulator: sweeps that arrive, listed one by one or drawn from a seeded recipe."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orchestrator.errors import BadInput

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One sweep of a trace. at_s: when it is submitted. gpus: of one trial. trials_s: length of each trial."""

    at_s: float
    project: str
    user: str
    priority: int
    gpus: float
    trials_s: tuple[float, ...]

    @property
    def work(self) -> float:
        """GPU-seconds in all."""
        return self.gpus * sum(self.trials_s)


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Listed(_Words):
    """One sweep, written out."""

    at_s: float = Field(0, ge=0)
    project: str = "default"
    user: str = "anonymous"
    priority: int = Field(50, ge=0, le=100)
    gpus: float = Field(1, gt=0, description="Of one trial.")
    trials: int = Field(1, ge=1)
    trial_s: float = Field(gt=0)


class Recipe(_Words):
    """What sweeps are drawn from. Tables give each value its weight."""

    seed: int = 0
    sweeps: int = Field(ge=1, le=1_000_000)
    span_hours: float = Field(ge=0, description="Sweeps arrive evenly at random within it; 0: all at once.")
    projects: dict[str, float] = Field(min_length=1)
    users: int = Field(1, ge=1, description="Of each project.")
    priorities: dict[int, float] = Field(default_factory=lambda: {50: 1.0}, min_length=1)
    gpus: dict[float, float] = Field(min_length=1, description="Of one trial.")
    trials: dict[int, float] = Field(min_length=1)
    trial_hours: float = Field(gt=0, description="Median over sweeps; log-normal.")
    spread: float = Field(1.0, ge=0, description="Standard deviation of the logarithm between sweeps.")
    jitter: float = Field(0.2, ge=0, description="The same between the trials of one sweep.")


class Trace(_Words):
    """A trace file: `recipe` or `sweeps`."""

    recipe: Recipe | None = None
    sweeps: list[Listed] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.recipe is None) == (not self.sweeps):
            raise ValueError("give `recipe` or `sweeps`")
        return self

    def arrivals(self) -> list[Arrival]:
        """By time."""
        if self.recipe is not None:
            return drawn(self.recipe)
        found = [
            Arrival(each.at_s, each.project, each.user, each.priority, each.gpus, (each.trial_s,) * each.trials)
            for each in self.sweeps
        ]
        return sorted(found, key=lambda arrival: arrival.at_s)


def read_trace(path: Path) -> list[Arrival]:
    """The sweeps of a trace file, by time.

    Raises:
        BadInput: it cannot be read, or is no trace.
    """
    try:
        return Trace.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).arrivals()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not YAML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadInput(f"{path}: {where}: {first['msg']}. sweeps/traces/ has examples.") from None


def drawn(recipe: Recipe) -> list[Arrival]:
    """The recipe's sweeps, by time: the same on every machine."""
    rng = random.Random(recipe.seed)
    hour = 3600.0
    times = sorted(rng.uniform(0, recipe.span_hours * hour) for _ in range(recipe.sweeps))
    found = []
    for at_s in times:
        project = _pick(rng, recipe.projects)
        mean = recipe.trial_hours * hour * rng.lognormvariate(0, recipe.spread)
        found.append(
            Arrival(
                at_s=at_s,
                project=project,
                user=f"{project}-{rng.randrange(recipe.users)}",
                priority=_pick(rng, recipe.priorities),
                gpus=_pick(rng, recipe.gpus),
                trials_s=tuple(mean * rng.lognormvariate(0, recipe.jitter) for _ in range(_pick(rng, recipe.trials))),
            )
        )
    return found


def _pick(rng: random.Random, table: dict[Value, float]) -> Value:
    return rng.choices(list(table), list(table.values()))[0]
