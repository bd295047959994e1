"""From a sweep file to its trials. Pure: the same spec gives the same trials, on any machine, in any year."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import BadInput
from orchestrator.matching import Matched, Matcher, Sizer
from orchestrator.records import NewTrial, Scalar
from orchestrator.spec.cells import Cells
from orchestrator.spec.condition import parse_condition
from orchestrator.spec.expression import ExpressionError
from orchestrator.spec.model import LEARNING, POPULATION, SweepSpec
from orchestrator.spec.space import Axis, Values, axes_of, cells_of, point
from workloads.config import TrialConfig
from workloads.errors import ConfigError, nearest
from workloads.reported import may_report, reported_metrics

MAX_PLANNED = 100_000
MANY_TRIALS = 10_000
WORST_MATCH = 0.02
MOST_RACERS = 1_000


@dataclass(frozen=True, slots=True)
class Configuration:
    """One configuration without its seed. config: every default written out. params: the swept values that apply."""

    config: dict[str, Any]
    config_hash: str
    params: dict[str, Scalar]


class Planner:
    """Makes configurations of one sweep file out of values for its axes.

    Raises:
        BadInput: when it is made, if derived parameters refer to each other in a circle.
    """

    def __init__(self, spec: SweepSpec, sizer: Sizer | None = None) -> None:
        """sizer: what `match` asks; a file that has it cannot be planned without."""
        assert sizer is not None or spec.match is None, "`match` needs a sizer"
        self.spec = spec
        self.axes = axes_of(spec)
        self.misses: list[str] = []
        """Configurations that matching could not make equal, for people."""
        self._matcher = Matcher(spec.match, sizer) if spec.match and sizer else None
        try:
            self._cells = Cells(spec)
        except ExpressionError as error:
            raise BadInput(f"{error}.") from None

    def configuration(self, values: Values) -> Configuration | None:
        """The configuration at these values; None where a constraint leaves it out.

        Raises:
            BadInput: the combination is no valid configuration, or an expression has no value.
        """
        try:
            resolved = self._cells.cell(values)
        except ExpressionError as error:
            raise BadInput(f"with {_told(values)}: {error}.") from None
        if resolved is None:
            return None
        try:
            # What ran is on record whatever defaults become: every default is written out.
            config = TrialConfig.parse(resolved.config).document()
        except ConfigError as error:
            raise BadInput(f"with {_told(resolved.params)}: {error}") from None
        del config["seed"]
        params = {name: as_scalar(value) for name, value in resolved.params.items()}
        if self._matcher is not None and (matched := self._matcher.matched(config)) is not None:
            self._note(params, matched)
            config, params = matched.config, params | {matched.name: matched.value}
        return Configuration(config, self._hash(config), params)

    def follow(self, config: Mapping[str, Any]) -> None:
        """`config`, the sweep's first, was planned before: what is matched is matched to it."""
        if self._matcher is not None:
            self._matcher.aim(config)

    def _note(self, params: Mapping[str, Any], matched: Matched) -> None:
        if abs(matched.off) > WORST_MATCH:
            told = f"{matched.name} = {matched.value} misses the budget by {matched.off:+.1%}"
            self.misses.append(f"with {_told(params)}: {told}")

    def _hash(self, config: Mapping[str, Any]) -> str:
        if self.spec.search.method not in POPULATION:
            return config_hash(config)
        # It is only what a member of the population starts with: no trial that keeps it is the same
        return config_hash({**config, "population": self.spec.name})

    def trials(self, configuration: Configuration, first_number: int) -> list[NewTrial]:
        """A configuration with every seed, numbered from `first_number`."""
        return [
            NewTrial(
                number=first_number + index,
                config=configuration.config,
                config_hash=configuration.config_hash,
                seed=seed,
                params=configuration.params,
            )
            for index, seed in enumerate(self.spec.seeds.planned)
        ]


@dataclass(frozen=True, slots=True)
class Plan:
    """trials: in the order in which they run; configurations: distinct ones, each trained once with every seed."""

    trials: tuple[NewTrial, ...]
    configurations: int
    skipped: int
    """Cells or draws that came to the configuration of an earlier one, though every parameter applied, or none says
    when it does."""
    constrained: int
    """Cells or draws that a constraint left out."""
    proposed: int = 0
    """Further trials at most: those that a search proposes from results, or a race's further seeds."""
    notes: tuple[str, ...] = ()
    """What matching could not make equal; what conditions read that no trial tells."""

    @property
    def warnings(self) -> list[str]:
        """What the file's author may not have meant."""
        found = list(self.notes)
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


def make_plan(spec: SweepSpec, sizer: Sizer | None = None) -> Plan:
    """All trials of a search that does not learn.

    Args:
        sizer: see `Planner`.

    Seeds are the inner axis, so that the seeds of a configuration stand together. `max_trials` counts trials and
    keeps seed groups whole.

    Raises:
        BadInput: the grid has more than 100,000 cells, or a combination of values is no valid configuration.
    """
    planner = Planner(spec, sizer)
    limit = _configuration_limit(spec, planner.axes)
    trials: list[NewTrial] = []
    seen: set[str] = set()
    skipped = constrained = 0
    conditional = [name for name, parameter in spec.parameters.items() if parameter.when is not None]
    for values in _draws(spec, planner.axes):
        if len(seen) == limit:
            break
        found = planner.configuration(values)
        if found is None:
            constrained += 1
        elif found.config_hash in seen:
            # Where a condition does not hold, its parameter is meant to change nothing
            skipped += not any(name not in found.params for name in conditional)
        else:
            seen.add(found.config_hash)
            trials += planner.trials(found, len(trials))
    if not trials:
        raise BadInput("no trial is left: every configuration is left out by `constraints`.")
    if spec.seeds.policy == "race" and len(seen) > MOST_RACERS:
        raise BadInput(
            f"a race compares every pair of configurations: {len(seen):,} are more than {MOST_RACERS:,}. "
            "Sweep fewer values, or leave `policy: race` out."
        )
    notes = list(dict.fromkeys(planner.misses))
    proposed = 0
    if spec.search.method in LEARNING:
        seeds = len(spec.seeds.numbers)
        proposed = (spec.search.max_trials or 0) // seeds * seeds - len(trials)
    if spec.seeds.policy == "race":
        proposed = len(seen) * len(spec.seeds.numbers) - len(trials)
        notes.append(
            f"a race: {len(spec.seeds.planned)} seeds each at first, {len(spec.seeds.numbers)} at most for those that "
            f"cannot be told from the best: {len(trials):,} to {len(trials) + proposed:,} trials"
        )
    notes += [*_unheard(spec, trials), *_unranked(spec, trials)]
    if spec.search.method in ("grid", "list"):
        notes += _without_effect(spec, trials)
    return Plan(tuple(trials), len(seen), skipped, constrained, proposed, tuple(notes))


def _without_effect(spec: SweepSpec, trials: Sequence[NewTrial]) -> Iterator[str]:
    """Axes that no trial has, since their condition or their place never comes true."""
    for name, parameter in spec.parameters.items():
        if not any(name in trial.params for trial in trials):
            why = f"its condition, {parameter.when}, never holds" if parameter.when else "no chosen method has it"
            yield f"the parameter {name} changes nothing: {why}"


def config_hash(config: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of a configuration without its seed."""
    text = json.dumps({k: v for k, v in config.items() if k != "seed"}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def as_scalar(value: Any) -> Scalar:
    """A parameter's value as SQL and MLflow take it; a mapping or list becomes compact JSON."""
    return value if isinstance(value, str | int | float | bool | None) else json.dumps(value, sort_keys=True)


def _configuration_limit(spec: SweepSpec, axes: Sequence[Axis]) -> int:
    if spec.search.method == "list":
        return len(spec.search.configs)
    cells = cells_of(axes)
    if spec.search.max_trials is None:
        assert cells is not None, "the loader asks for max_trials where a range is swept"
        if cells * len(spec.seeds.numbers) > MAX_PLANNED:
            raise BadInput(
                f"the grid has {cells:,} cells and {len(spec.seeds.numbers)} seeds; at most {MAX_PLANNED:,} trials are "
                "planned. Set `search.max_trials`, or sweep fewer values."
            )
        return cells
    if spec.search.max_trials < len(spec.seeds.numbers):
        raise BadInput(
            f"search.max_trials ({spec.search.max_trials}) is less than the {len(spec.seeds.numbers)} seeds of one "
            "configuration."
        )
    configurations = spec.search.max_trials // len(spec.seeds.numbers)
    # What a method learns from is planned; the rest it proposes as results come in.
    return min(configurations, spec.search.startup) if spec.search.method in LEARNING else configurations


def _draws(spec: SweepSpec, axes: Sequence[Axis]) -> Iterator[Values]:
    """Values to try, in order; a longer search begins with the shorter one's."""
    match spec.search.method:
        case "list":
            yield from (dict(config) for config in spec.search.configs)
        case "grid":
            for parts in itertools.product(*(axis.rows for axis in axes)):
                yield {name: value for part in parts for name, value in part.items()}
        case "sobol":
            yield from (point(axes, row) for row in _sobol(len(axes), spec.search.seed, _most_draws(spec, axes)))
        case _:
            for index in range(_most_draws(spec, axes)):
                # One generator a draw: draw i is the same whatever was drawn, or left out, before it.
                rng = random.Random(f"{spec.search.seed}/{index}")
                yield point(axes, [rng.random() for _ in axes])


def _most_draws(spec: SweepSpec, axes: Sequence[Axis]) -> int:
    """A finite space may hold fewer configurations than were asked for: stop once draws only repeat."""
    cells = cells_of(axes)
    return 100 * (spec.search.max_trials or 1) if cells is None else 50 * cells + 100


def _sobol(dimensions: int, seed: int, count: int) -> Iterator[list[float]]:
    if dimensions == 0:
        yield []
        return
    # SciPy's statistics take half a second to import, and this method alone needs them.
    from scipy.stats import qmc

    engine = qmc.Sobol(dimensions, scramble=True, rng=seed)
    for _ in range(count):
        yield engine.random(1)[0].tolist()


def _unranked(spec: SweepSpec, trials: Sequence[NewTrial]) -> Iterator[str]:
    """Swept tasks whose trials report no metric to rank them by."""
    tasks = {trial.config["task"]["name"]: trial.config for trial in trials}
    for task, config in tasks.items():
        known = reported_metrics(TrialConfig.parse(config))
        if spec.metric is not None and spec.metric.name not in known:
            yield f"trials of the task {task} do not report {spec.metric.name!r}; they report {', '.join(known)}"


def _unheard(spec: SweepSpec, trials: Sequence[NewTrial]) -> Iterator[str]:
    """Names that `stop_if` reads and that no trial is known to report: their conditions would never hold."""
    names = list(dict.fromkeys(name for rule in spec.stop_if for name in parse_condition(rule.when).names))
    if not names:
        return
    # What is reported by name hangs on the task
    tasks = {trial.config["task"]["name"]: trial.config for trial in trials}
    configs = [TrialConfig.parse(config) for config in tasks.values()]
    for name in names:
        if not any(may_report(name, config) for config in configs):
            known = {each for config in configs for each in reported_metrics(config)}
            yield f"`stop_if` reads {name!r}, which no trial is known to report. {nearest(name, known)}"


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in values.items()) or "the workload as it stands"
