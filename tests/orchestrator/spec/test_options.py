"""Options of search methods and of early stopping: their names are the libraries' own, and wrong ones are told."""

from __future__ import annotations

import inspect

import pytest
from optuna.pruners import HyperbandPruner
from optuna.samplers import CmaEsSampler, GPSampler, NSGAIISampler, TPESampler
from ray.tune.schedulers import MedianStoppingRule, PopulationBasedTraining
from ray.tune.schedulers.pb2 import PB2

from orchestrator.errors import BadInput
from orchestrator.spec import load_spec, options

TAKEN_BY = {
    "tpe": TPESampler,
    "bohb": TPESampler,
    "gp": GPSampler,
    "cmaes": CmaEsSampler,
    "nsga2": NSGAIISampler,
    "pbt": PopulationBasedTraining,
    "pb2": PB2,
    "median": MedianStoppingRule,
    "hyperband": HyperbandPruner,
}


@pytest.mark.parametrize(("method", "model"), (options.SEARCH | options.EARLY_TERMINATE).items())
def test_every_option_is_one_of_the_class_that_takes_it(method: str, model: type[options.Options]) -> None:
    taken = inspect.signature(TAKEN_BY[method].__init__).parameters
    assert model.model_fields
    assert model.model_fields.keys() <= taken.keys()


FILE = """\
name: x
parameters:
  training.lr: {{min: 1e-4, max: 1e-2}}
  training.batch_size: [4, 8]
search: {{method: {method}, max_trials: 8, options: {{{options}}}}}
{rest}
"""
HYPERBAND = "early_terminate: {type: hyperband, grace_steps: 5, options: {boot_count: 2}}"


def complaints(method: str, given: str = "", rest: str = "") -> list[tuple[int | None, int | None, str, str]]:
    with pytest.raises(BadInput) as caught:
        load_spec(FILE.format(method=method, options=given, rest=rest), "f.yaml")
    return [(each.line, each.column, each.message, each.hint) for each in caught.value.complaints]


@pytest.mark.parametrize(
    ("method", "given", "rest", "line", "says", "hint"),
    [
        ("tpe", "n_ei_candidate: 9", "", 5, "unknown key 'n_ei_candidate'", "Did you mean 'n_ei_candidates'"),
        ("gp", "popsize: 9", "", 5, "unknown key 'popsize'", "Known: deterministic_objective"),
        ("random", "popsize: 9", "", 5, "unknown key 'popsize'", "random has no options"),
        ("cmaes", "popsize: 1", "", 5, "greater than or equal to 2, got 1", ""),
        ("pbt", "quantile_fraction: 0.7", "", 5, "less than or equal to 0.5, got 0.7", ""),
        ("pbt", "perturbation_intervall: 5", "", 5, "unknown key", "Did you mean 'perturbation_interval'"),
        ("random", "", HYPERBAND, 6, "unknown key 'boot_count'", "Did you mean 'bootstrap_count'"),
    ],
)
def test_a_wrong_option_is_told_with_its_place_and_the_nearest_name(
    method: str, given: str, rest: str, line: int, says: str, hint: str
) -> None:
    [(at, column, message, advice)] = complaints(method, given, rest)
    assert at == line
    assert (column or 0) > 20
    assert says in message
    assert hint in advice


@pytest.mark.parametrize(
    ("method", "given", "rest", "says"),
    [
        ("nsga2", "", "", "name two or more in `metrics`"),
        ("tpe", "", "metrics: [{name: val_loss}, {name: val_loss}]", "names a metric twice"),
        ("tpe", "", "metric: {name: val_bpb}\nmetrics: [{name: val_loss}]", "give one of the two"),
        ("tpe", "", "metrics: [{name: val_loss}, {name: val_bpb, aggregate: best}]", "belongs to the first"),
        ("tpe", "", "metrics: [{name: val_los}]", "never reports a metric 'val_los'"),
        ("bohb", "", "early_terminate: {type: asha}", "must be hyperband, not asha"),
        ("pbt", "", "early_terminate: {type: asha}", "leave `early_terminate` out"),
        ("pb2", "hyperparam_bounds: [training.batch_size]", "", "'training.batch_size', which has no range"),
        ("pbt", "hyperparam_mutations: [training.lrr]", "", "'training.lrr', which is no parameter"),
        ("random", "", "early_terminate: {type: hyperband, reduction_factor: 1.5}", "needs a whole `reduction_factor`"),
    ],
)
def test_methods_and_what_goes_with_them_must_agree(method: str, given: str, rest: str, says: str) -> None:
    assert any(says in message for _, _, message, _ in complaints(method, given, rest))


def test_bohb_brings_hyperband_along_and_populations_change_what_training_takes() -> None:
    bohb = load_spec(FILE.format(method="bohb", options="", rest=""))
    assert bohb.early_terminate is not None
    assert bohb.early_terminate.type == "hyperband"
    pbt = load_spec(FILE.format(method="pbt", options="", rest=""))
    assert pbt.mutated == ["training.lr", "training.batch_size"]
    pb2 = load_spec(FILE.format(method="pb2", options="", rest=""))
    assert pb2.mutated == ["training.lr"]
    text = "name: x\nparameters: {model.d_model: [8, 16]}\nsearch: {method: pbt, max_trials: 4}\n"
    with pytest.raises(BadInput, match="give one of `training`"):
        load_spec(text)
