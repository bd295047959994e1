"""Options of search methods and of early stopping, by the names that Optuna and Ray Tune give them.

A name, its type and its range stand here, because reading a sweep file must not load those libraries; a test holds
every name against the class that takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


class Options(BaseModel):
    """Base of all: unknown names are errors; what is left out is left to the library."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def given(self) -> dict[str, Any]:
        """What the file says, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class NoOptions(Options):
    """A method that has none."""


class TpeOptions(Options):
    """Optuna's TPESampler."""

    n_ei_candidates: int = Field(24, ge=1, description="Draws of which the best is proposed.")
    multivariate: bool = Field(True, description="Model parameters together.")
    group: bool = Field(True, description="Model conditional parameters apart.")
    constant_liar: bool = Field(True, description="Count running trials as bad ones, so that proposals spread.")


class GpOptions(Options):
    """Optuna's GPSampler."""

    deterministic_objective: bool = Field(False, description="The metric has no noise.")


class CmaesOptions(Options):
    """Optuna's CmaEsSampler."""

    sigma0: float | None = Field(None, gt=0, description="First step size.")
    popsize: int | None = Field(None, ge=2, description="Configurations a generation.")
    use_separable_cma: bool = Field(False, description="A diagonal covariance, for many parameters.")
    with_margin: bool = Field(False, description="Keep discrete parameters from getting stuck.")
    lr_adapt: bool = Field(False, description="Adapt the learning rate to noise and many optima.")


class Nsga2Options(Options):
    """Optuna's NSGAIISampler."""

    population_size: int = Field(50, ge=2, description="Configurations a generation; `startup` when left out.")
    mutation_prob: Share | None = Field(None, description="Chance that a parameter is drawn anew.")
    crossover_prob: Share = Field(0.9, description="Chance that a child has two parents.")
    swapping_prob: Share = Field(0.5, description="Chance that a parameter comes from the second parent.")


class PbtOptions(Options):
    """Ray Tune's PopulationBasedTraining. Times are steps."""

    hyperparam_mutations: list[str] = Field(
        [], min_length=1, description="Parameters that change in mid-training; those of `training` when left out."
    )
    perturbation_interval: int = Field(
        0, ge=1, description="Steps between decisions on a trial; a tenth of its steps when left out."
    )
    burn_in_period: int = Field(0, ge=0, description="No decision before this step.")
    quantile_fraction: float = Field(0.25, gt=0, le=0.5, description="Share of the population that counts as worst.")
    resample_probability: Share = Field(0.25, description="Chance that a parameter is drawn anew, not perturbed.")
    perturbation_factors: list[Annotated[float, Field(gt=0)]] = Field(
        [1.2, 0.8], min_length=1, description="Factors by which a number is perturbed."
    )


class Pb2Options(Options):
    """Ray Tune's PB2. Times are steps."""

    hyperparam_bounds: list[str] = Field(
        [], min_length=1, description="Ranges that change in mid-training; those of `training` when left out."
    )
    perturbation_interval: int = Field(
        0, ge=1, description="Steps between decisions on a trial; a tenth of its steps when left out."
    )
    quantile_fraction: float = Field(0.25, gt=0, le=0.5, description="Share of the population that counts as worst.")


class MedianOptions(Options):
    """Ray Tune's MedianStoppingRule."""

    min_samples_required: int = Field(3, ge=1, description="Other trials there must be for a median.")


class HyperbandOptions(Options):
    """Optuna's HyperbandPruner."""

    bootstrap_count: int = Field(0, ge=0, description="Trials that a rung waits for before it lets one pass.")


SEARCH: Mapping[str, type[Options]] = {
    "tpe": TpeOptions,
    "bohb": TpeOptions,
    "gp": GpOptions,
    "cmaes": CmaesOptions,
    "nsga2": Nsga2Options,
    "pbt": PbtOptions,
    "pb2": Pb2Options,
}
EARLY_TERMINATE: Mapping[str, type[Options]] = {"median": MedianOptions, "hyperband": HyperbandOptions}


def search_options(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Checked options of a search method, only those given.

    Raises:
        pydantic.ValidationError: a name that the method does not have, or a wrong value.
    """
    return SEARCH.get(method, NoOptions).model_validate(dict(given)).given


def stopping_options(rule: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Checked options of a rule of early stopping, only those given.

    Raises:
        pydantic.ValidationError: a name that the rule does not have, or a wrong value.
    """
    return EARLY_TERMINATE.get(rule, NoOptions).model_validate(dict(given)).given
