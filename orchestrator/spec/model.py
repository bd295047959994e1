"""The words of the sweep file. Their docstrings and descriptions become the published JSON Schema."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from orchestrator.spec.notify import Notify, notify_of
from orchestrator.spec.operations import (
    Budget,
    Code,
    Environment,
    Hypothesis,
    LogPolicy,
    Resources,
    Seeds,
    StartFrom,
    StopRule,
    code_of,
    references_of,
    seeds_of,
    stop_rules_of,
)
from orchestrator.spec.words import Duration, Formula, Words

Goal = Literal["minimize", "maximize"]
Distribution = Literal[
    "uniform",
    "int_uniform",
    "q_uniform",
    "log_uniform_values",
    "int_log_uniform",
    "q_log_uniform_values",
    "normal",
    "q_normal",
]


class Parameter(Words):
    """One swept name: a fixed `value`, a list of `values`, or a range with `min` and `max`."""

    value: Any = Field(None, description="One fixed value.")
    values: list[Any] | None = Field(None, min_length=1, description="The values to choose from.")
    probabilities: list[float] | None = Field(None, description="Chance of each of `values` in a random search.")
    distribution: Distribution | None = Field(
        None, description="How a range is drawn; int_uniform between whole numbers and uniform otherwise."
    )
    min: float | int | None = Field(None, description="Lower end of a range.")
    max: float | int | None = Field(None, description="Upper end of a range, included.")
    mu: float | None = Field(None, description="Mean of a normal distribution.")
    sigma: float | None = Field(None, gt=0, description="Standard deviation of a normal distribution.")
    q: float | int | None = Field(None, gt=0, description="Step of the q_ forms: drawn numbers are multiples of it.")
    expr: Formula | None = Field(None, description='Derived: "4096 // k", over parameters and the configuration.')
    when: Formula | None = Field(
        None, description="The parameter exists only where this is true: \"router.name == 'dense_to_sparse'\"."
    )

    @model_serializer(mode="wrap")
    def _as_written(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # `value: null` is a value, so what was left out must stay left out for the record to be read back.
        return {name: each for name, each in serialize(self).items() if name in self.model_fields_set}

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        forms = [self.values is not None, "value" in self.model_fields_set, self.is_range, self.expr is not None]
        if sum(forms) != 1:
            raise ValueError(
                "give exactly one of `value`, `values`, `expr`, or a range (`min` and `max`, or `mu` and `sigma`)"
            )
        if self.probabilities is not None:
            if self.values is None or len(self.probabilities) != len(self.values):
                raise ValueError("`probabilities` needs one number for each of `values`")
            if min(self.probabilities) < 0 or not math.isclose(sum(self.probabilities), 1.0, abs_tol=1e-6):
                raise ValueError(f"`probabilities` must be >= 0 and sum to 1, got a sum of {sum(self.probabilities):g}")
        if self.is_range:
            self._check_range()
        return self

    def _check_range(self) -> None:
        kind = self.kind
        if kind.endswith("normal") and not kind.startswith(("log", "int_log")) and "uniform" not in kind:
            if self.mu is None or self.sigma is None:
                raise ValueError(f"{kind} needs `mu` and `sigma`")
        else:
            if self.min is None or self.max is None:
                raise ValueError(f"{kind} needs `min` and `max`")
            if self.min >= self.max:
                raise ValueError(f"`min` ({self.min:g}) must be less than `max` ({self.max:g})")
            if "log" in kind and self.min <= 0:
                raise ValueError(f"{kind} needs a `min` above 0, got {self.min:g}")
            if kind.startswith("int_") and (int(self.min) != self.min or int(self.max) != self.max):
                raise ValueError(f"{kind} needs whole numbers for `min` and `max`")
        if kind.startswith("q_") and self.q is None:
            raise ValueError(f"{kind} needs `q`")

    @property
    def is_range(self) -> bool:
        """Drawn from a range rather than chosen from a list."""
        return any(item is not None for item in (self.min, self.max, self.distribution, self.mu, self.sigma))

    @property
    def kind(self) -> str:
        """The distribution, with its default filled in."""
        if self.distribution:
            return self.distribution
        if self.mu is not None:
            return "normal"
        return "int_uniform" if isinstance(self.min, int) and isinstance(self.max, int) else "uniform"

    @property
    def choices(self) -> list[Any] | None:
        """The finite list of values; None for a range and for an expression."""
        if self.is_range or self.expr is not None:
            return None
        return self.values if self.values is not None else [self.value]


def _bare(value: Any) -> Any:
    if isinstance(value, list):
        return {"values": value}
    return value if isinstance(value, Mapping) else {"value": value}


MOST_PARAMETERS = 500


def _few(parameters: Any) -> Any:
    if isinstance(parameters, Mapping) and len(parameters) > MOST_PARAMETERS:
        raise ValueError(f"at most {MOST_PARAMETERS} parameters are swept, not {len(parameters):,}")
    return parameters


class Metric(Words):
    """The number that ranks trials."""

    name: str = Field(min_length=1, description="A metric that the task reports, such as val_bpb.")
    goal: Goal = Field("minimize", description="Whether smaller or larger is better.")
    aggregate: Literal["last", "best", "mean_last_k"] = Field(
        "last",
        description="What of a trial's curve counts: its last value, its best, or the mean of its last `k` reports.",
    )
    k: int = Field(5, ge=1, le=1000, description="For mean_last_k: so many reports.")


LEARNING = ("tpe", "gp", "cmaes", "nsga2", "bohb")
"""Methods that propose configurations from the results so far; the others are planned when they are submitted."""

POPULATION = ("pbt", "pb2")
"""Methods whose planned trials go on from each other's checkpoints, with changed parameters."""

FIXED = frozenset(f"training.{name}" for name in ("steps", "optimizer", "eval_every", "checkpoint_every"))
"""Parameters of `training` that a population leaves as they are."""


class Search(Words):
    """Which configurations are tried."""

    method: Literal["grid", "random", "sobol", "list", "tpe", "gp", "cmaes", "nsga2", "bohb", "pbt", "pb2"] = Field(
        "grid",
        description="grid: every combination. random: independent draws. sobol: quasi-random draws that fill the space "
        "evenly. list: the assignments of `configs`. tpe, gp, cmaes: Optuna's samplers, which learn from results. "
        "nsga2: Optuna's, for several `metrics`. bohb: tpe on the brackets of hyperband. pbt, pb2: Ray Tune's; the "
        "worst of a population of `max_trials` go on from the checkpoints of the best, with changed parameters.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the method, by their names in Optuna or Ray Tune."
    )
    startup: int = Field(8, ge=1, description="Configurations that a method which learns draws at random at first.")
    configs: list[dict[str, Any]] = Field(default_factory=list, description="For method list: dotted names to values.")
    max_trials: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="At most so many trials (configurations times seeds); a random search needs it.",
    )
    seed: int = Field(0, ge=0, description="Seed of the draws; the same file always gives the same trials.")

    @model_validator(mode="after")
    def _method_has_what_it_needs(self) -> Self:
        if self.method in ("random", "sobol", *LEARNING, *POPULATION) and self.max_trials is None:
            raise ValueError(f"a {self.method} search needs `max_trials`")
        if (self.method == "list") != bool(self.configs):
            raise ValueError("method list and `configs` go together")
        return self


BUDGETS = {"active_parameters": "active_params", "parameters": "params", "flops": "train_flops_per_token"}


class Match(Words):
    """Solves one size of each configuration, so that variants are compared at equal budget."""

    by: Annotated[
        Literal["active_params", "params", "train_flops_per_token"], BeforeValidator(lambda v: BUDGETS.get(v, v))
    ] = Field(description="What is made equal: active_parameters, parameters, or flops (of training, a token).")
    adjust: Annotated[list[str], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)] = Field(
        min_length=1, description="Dotted name of the size that is solved; of several, the first that a variant has."
    )
    to: float | None = Field(None, gt=0, description="The budget; that of the first configuration when left out.")
    min: int = Field(1, ge=1, description="Smallest size.")
    max: int = Field(65_536, ge=1, description="Largest size.")
    multiple_of: int = Field(1, ge=1, description="Sizes are multiples of it.")


class EarlyTerminate(Words):
    """When a trial is stopped before its last step."""

    type: Literal["asha", "hyperband", "median", "none"] = Field(
        description="asha: asynchronous successive halving. hyperband: the same in several brackets, whose first rungs "
        "lie at different steps. median: worse than the median of the others' running means. none: never."
    )
    grace_steps: int = Field(50, ge=1, description="No trial is stopped before this step.")
    reduction_factor: float = Field(3, gt=1, description="Of the trials at a rung, one in so many goes on.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Further options of the rule, by their names in Optuna or Ray Tune."
    )

    @model_validator(mode="after")
    def _whole_factor(self) -> Self:
        if self.type == "hyperband" and (
            self.reduction_factor < 2 or self.reduction_factor != int(self.reduction_factor)
        ):
            raise ValueError(f"hyperband needs a whole `reduction_factor` of 2 or more, got {self.reduction_factor:g}")
        return self


class SweepSpec(Words):
    """One sweep file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Name of the sweep.")
    project: str = Field(
        "default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Sweeps of a project share a leaderboard."
    )
    notes: str = Field("", max_length=10_000, description="Why this sweep exists.")
    tags: list[str] = Field(default_factory=list, max_length=100, description="Words to find it by.")
    workload: dict[str, Any] = Field(
        default_factory=dict,
        description="The part of every trial's configuration that is fixed: task, model, training.",
    )
    parameters: Annotated[dict[str, Annotated[Parameter, BeforeValidator(_bare)]], BeforeValidator(_few)] = Field(
        default_factory=dict, description="What is swept: dotted names into `workload`; at most 500."
    )
    zip: list[list[str]] = Field(
        default_factory=list, description="Groups of parameters whose `values` move together, one after the other."
    )
    constraints: list[Formula] = Field(
        default_factory=list,
        description='Configurations are left out where one of these is false: "k < num_experts".',
    )
    match: Match | None = Field(None, description="Solves one size, so that variants are compared at equal budget.")
    seeds: Annotated[Seeds, BeforeValidator(seeds_of)] = Field(
        default_factory=lambda: Seeds(values=[0]), description="Every configuration is trained once with each seed."
    )
    metric: Metric | None = Field(None, description="What ranks trials; the task's own metric when left out.")
    metrics: list[Metric] = Field(
        default_factory=list,
        description="Several metrics, instead of `metric`: results show which configurations no other beats in all of "
        "them. The first one ranks trials and decides on early stopping.",
    )
    search: Search = Field(default_factory=Search, description="Which configurations are tried.")
    early_terminate: EarlyTerminate | None = Field(
        None, description="When a trial is stopped early; never when left out."
    )
    stop_if: Annotated[list[StopRule], BeforeValidator(stop_rules_of)] = Field(
        default_factory=list, max_length=100, description="Conditions on reported metrics under which a trial ends."
    )
    budget: Budget = Field(default_factory=Budget, description="What the sweep may use in all.")
    resources: Resources = Field(default_factory=Resources, description="What one trial takes, and where it may run.")
    retries: int = Field(
        2,
        ge=0,
        le=100,
        description="How often a trial that failed by its own fault starts again; lost workers are not counted.",
    )
    heartbeat_timeout: Duration = Field(
        "30m",
        description="A trial without an optimiser step for so long is taken for hung: its workers are started anew, "
        "and it has failed by its own fault, which `retries` counts.",
    )
    log_policies: list[LogPolicy] = Field(
        default_factory=list, max_length=100, description="What lines of a failed trial's log mean for it."
    )
    priority: int = Field(50, ge=0, le=100, description="Sweeps of higher priority run first.")
    depends_on: Annotated[list[str], BeforeValidator(references_of)] = Field(
        default_factory=list, max_length=100, description="Sweeps, by name or number, that must have succeeded first."
    )
    start_from: StartFrom | None = Field(
        None, description="`best of SWEEP`: every trial starts from the checkpoint of that sweep's best trial."
    )
    code: Annotated[Code | None, BeforeValidator(code_of)] = Field(None, description="Code of the sweep's own.")
    environment: Environment = Field(
        default_factory=dict, max_length=100, description="Environment variables of its driver and workers."
    )
    notify: Annotated[Notify | None, BeforeValidator(notify_of)] = Field(None, description="Webhooks that hear of it.")
    hypothesis: Hypothesis | None = Field(
        None, description="What is claimed before anything has run: sealed when the sweep is submitted."
    )

    @model_validator(mode="before")
    @classmethod
    def _bohb_has_hyperband(cls, data: Any) -> Any:
        search = data.get("search") if isinstance(data, Mapping) else None
        if isinstance(search, Mapping) and search.get("method") == "bohb" and data.get("early_terminate") is None:
            return {**data, "early_terminate": {"type": "hyperband"}}
        return data

    @model_validator(mode="after")
    def _methods_agree(self) -> Self:
        method, rule = self.search.method, self.early_terminate.type if self.early_terminate else "none"
        names = [metric.name for metric in self.metrics]
        if len(set(names)) != len(names):
            raise ValueError(f"`metrics` names a metric twice: {', '.join(names)}")
        if self.metrics and self.metric is not None and self.metric != self.metrics[0]:
            raise ValueError("`metric` is the first of `metrics`; give one of the two")
        if any(metric.aggregate != "last" for metric in self.metrics[1:]):
            raise ValueError("`aggregate` belongs to the first of `metrics`; of the others, the last value counts")
        if method == "nsga2" and len(names) < 2:
            raise ValueError("nsga2 weighs several metrics: name two or more in `metrics`")
        if method == "bohb" and rule != "hyperband":
            raise ValueError(f"bohb is tpe with hyperband: `early_terminate.type` must be hyperband, not {rule}")
        if method in ("nsga2", *POPULATION) and rule != "none":
            raise ValueError(f"{method} compares trials that ran equally long: leave `early_terminate` out")
        if method in POPULATION:
            self._check_mutated()
        return self

    @property
    def mutated(self) -> list[str]:
        """Parameters that a population changes in mid-training."""
        word = "hyperparam_mutations" if self.search.method == "pbt" else "hyperparam_bounds"
        named = self.search.options.get(word)
        if isinstance(named, list):
            return [str(name) for name in named]
        own = {name: each for name, each in self.parameters.items() if name.startswith("training.")}
        lists = self.search.method == "pbt"
        return [name for name, each in own.items() if name not in FIXED and (each.is_range or (lists and each.values))]

    def _check_mutated(self) -> None:
        method = self.search.method
        for name in self.mutated:
            if name not in self.parameters:
                raise ValueError(f"{method} is to change {name!r}, which is no parameter of this file")
            if method == "pb2" and not self.parameters[name].is_range:
                raise ValueError(f"pb2 is to change {name!r}, which has no range (`min` and `max`)")
        if not self.mutated:
            what = "a range (`min` and `max`)" if method == "pb2" else "values or a range"
            raise ValueError(f"{method} changes parameters in mid-training: give one of `training`, such as lr, {what}")

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.search.method == "list" and self.parameters:
            raise ValueError("method list takes its values from `search.configs`; leave `parameters` out")
        if self.search.method == "grid":
            ranges = [name for name, parameter in self.parameters.items() if parameter.is_range]
            if ranges:
                raise ValueError(
                    f"a grid needs `values`, but {', '.join(ranges)} is a range; use `search: {{method: random}}`"
                )
        self._check_zip()
        if self.seeds.policy == "race" and self.search.method in (*LEARNING, *POPULATION):
            raise ValueError(
                f"a race needs configurations that are known beforehand; {self.search.method} finds its own"
            )
        return self

    def _check_zip(self) -> None:
        for group in self.zip:
            lengths = {}
            for name in group:
                if name not in self.parameters:
                    raise ValueError(f"`zip` names {name!r}, which is no parameter of this file")
                choices = self.parameters[name].choices
                if choices is None:
                    raise ValueError(f"`zip` needs `values`, which {name!r} has not")
                lengths[name] = len(choices)
            if len(set(lengths.values())) > 1:
                told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
                raise ValueError(f"parameters that are zipped need equally many values, but {told}")
        names = [name for group in self.zip for name in group]
        if len(set(names)) != len(names):
            raise ValueError("a parameter stands in `zip` twice")
