"""From a sweep file to its trials. Pure: the same spec gives the same trials, on any machine, in any year."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import BadInput
from orchestrator.records import NewTrial, Scalar
from orchestrator.spec.cells import Cells
from orchestrator.spec.expression import ExpressionError
from orchestrator.spec.model import Parameter, SweepSpec
from orchestrator.spec.resolve import Resolved
from workloads.config import TrialConfig
from workloads.errors import ConfigError

MAX_PLANNED = 100_000
MANY_TRIALS = 10_000


@dataclass(frozen=True, slots=True)
class Plan:
    """trials: in the order in which they run; configurations: distinct ones, each trained once with every seed."""

    trials: tuple[NewTrial, ...]
    configurations: int
    skipped: int
    """Cells or draws that came to the configuration of an earlier one and were left out."""
    constrained: int
    """Cells or draws that a constraint left out."""

    @property
    def warnings(self) -> list[str]:
        """What the file's author may not have meant."""
        found = []
        if self.skipped:
            found.append(
                f"{self.skipped} combinations come to a configuration that is planned already and are left out: a "
                "parameter changes nothing where the chosen method does not have it"
            )
        if self.constrained:
            found.append(f"{self.constrained} combinations are left out by `constraints`")
        if len(self.trials) == self.configurations and self.configurations > 1:
            found.append("one seed a configuration: differences may be luck; `seeds: 3` gives intervals")
        if len(self.trials) >= MANY_TRIALS:
            found.append(f"{len(self.trials):,} trials are many; `search.max_trials` bounds them")
        return found


def make_plan(spec: SweepSpec) -> Plan:
    """All trials of a grid or random search.

    Seeds are the inner axis, so that the seeds of a configuration stand together. `max_trials` counts trials and
    keeps seed groups whole.

    Raises:
        BadInput: the grid has more than 100,000 cells, or a combination of values is no valid configuration.
    """
    limit = _configuration_limit(spec)
    trials: list[NewTrial] = []
    seen: set[str] = set()
    skipped = 0
    left_out = 0
    try:
        cells = Cells(spec)
    except ExpressionError as error:
        raise BadInput(f"{error}.") from None
    for drawn in _draws(spec):
        if len(seen) == limit:
            break
        resolved = _cell(cells, drawn)
        if resolved is None:
            left_out += 1
            continue
        config = _complete(resolved)
        digest = config_hash(config)
        if digest in seen:
            skipped += 1
            continue
        seen.add(digest)
        params = {name: as_scalar(value) for name, value in resolved.params.items()}
        for seed in spec.seeds:
            trials.append(NewTrial(number=len(trials), config=config, config_hash=digest, seed=seed, params=params))
    if not trials:
        raise BadInput("no trial is left: every configuration is left out by `constraints`.")
    return Plan(tuple(trials), len(seen), skipped, left_out)


def config_hash(config: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of a configuration without its seed."""
    text = json.dumps({k: v for k, v in config.items() if k != "seed"}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def as_scalar(value: Any) -> Scalar:
    """A parameter's value as SQL and MLflow take it; a mapping or list becomes compact JSON."""
    return value if isinstance(value, str | int | float | bool | None) else json.dumps(value, sort_keys=True)


def _configuration_limit(spec: SweepSpec) -> int:
    cells = math.prod(map(len, _axes(spec)))
    if spec.search.max_trials is None:
        if cells * len(spec.seeds) > MAX_PLANNED:
            raise BadInput(
                f"the grid has {cells:,} cells and {len(spec.seeds)} seeds; at most {MAX_PLANNED:,} trials are "
                "planned. Set `search.max_trials`, or sweep fewer values."
            )
        return cells
    if spec.search.max_trials < len(spec.seeds):
        raise BadInput(
            f"search.max_trials ({spec.search.max_trials}) is less than the {len(spec.seeds)} seeds of one "
            "configuration."
        )
    return spec.search.max_trials // len(spec.seeds)


def _cell(cells: Cells, drawn: dict[str, Any]) -> Resolved | None:
    try:
        return cells.cell(drawn)
    except ExpressionError as error:
        raise BadInput(f"with {_told(drawn)}: {error}.") from None


def _axes(spec: SweepSpec) -> list[list[dict[str, Any]]]:
    """The finite axes of the search, zipped parameters as one: each a list of partial assignments."""
    groups = {name: tuple(group) for group in spec.zip for name in group}
    axes = {}
    for name, parameter in spec.parameters.items():
        if parameter.choices is not None:
            names = groups.get(name, (name,))
            columns = [spec.parameters[each].choices or [] for each in names]
            axes[names] = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return list(axes.values())


def _draws(spec: SweepSpec) -> Iterator[dict[str, Any]]:
    axes = _axes(spec)
    if spec.search.method == "grid":
        for parts in itertools.product(*axes):
            yield {name: value for part in parts for name, value in part.items()}
        return
    ranges = {name: parameter for name, parameter in spec.parameters.items() if parameter.is_range}
    cells = math.prod(len(axis) for axis in axes)
    # A finite space may hold fewer configurations than were asked for: stop once draws only repeat.
    draws = 50 * cells + 100 if not ranges else 100 * (spec.search.max_trials or 1)
    for index in range(draws):
        # One generator a draw: draw i is the same whatever was drawn, or left out, before it.
        rng = random.Random(f"{spec.search.seed}/{index}")
        drawn: dict[str, Any] = {}
        for axis in axes:
            weights = spec.parameters[next(iter(axis[0]))].probabilities
            drawn |= rng.choices(axis, weights=weights)[0]
        yield drawn | {name: draw(parameter, rng) for name, parameter in ranges.items()}


def draw(parameter: Parameter, rng: random.Random) -> Any:
    """One value of a range."""
    kind, low, high = parameter.kind, parameter.min, parameter.max
    if kind in ("normal", "q_normal"):
        value = rng.gauss(parameter.mu or 0.0, parameter.sigma or 1.0)
    elif "log" in kind:
        value = math.exp(rng.uniform(math.log(low), math.log(high)))  # type: ignore[arg-type]
    elif kind == "int_uniform":
        return rng.randint(int(low), int(high))  # type: ignore[arg-type]
    else:
        value = rng.uniform(low, high)  # type: ignore[arg-type]
    if kind.startswith("q_"):
        return _to_step(value, parameter)
    return min(int(high), max(int(low), round(value))) if kind.startswith("int_") else value  # type: ignore[arg-type]


def _to_step(value: float, parameter: Parameter) -> float | int:
    step = parameter.q or 1
    value = round(value / step) * step
    if parameter.min is not None and parameter.max is not None:
        value = min(math.floor(parameter.max / step) * step, max(math.ceil(parameter.min / step) * step, value))
    return int(value) if isinstance(step, int) else float(f"{value:.12g}")


def _complete(resolved: Resolved) -> dict[str, Any]:
    """The configuration with every default written out, so that what ran is on record whatever defaults become."""
    try:
        config = TrialConfig.parse(resolved.config).document()
    except ConfigError as error:
        raise BadInput(f"with {_told(resolved.params)}: {error}") from None
    del config["seed"]
    return config


def _told(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in params.items()) or "the workload as it stands"
