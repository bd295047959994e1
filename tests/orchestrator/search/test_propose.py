"""Searchers that learn, over a real store and a closed-form objective: no Ray, no training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from orchestrator import pareto
from orchestrator.cluster.propose import Learner
from orchestrator.lifecycle import TrialState
from orchestrator.planning import make_plan
from orchestrator.records import NewTrial, Report, Trial
from orchestrator.spec import load_spec
from orchestrator.store import Store, open_store
from tests.support.builders import NOW
from tests.support.learned import FixedClock, search, submitted

TEXT = """\
name: learned
parameters:
  training.lr: {{distribution: log_uniform_values, min: 1e-5, max: 1.0}}
  model.d_model: {{min: 8, max: 128}}
  model.mixer.name: [gru, rg_lru]
seeds: {seeds}
search: {{method: {method}, max_trials: {trials}, seed: {seed}, startup: 6}}
"""
SEVERAL = "metrics: [{name: val_bpb}, {name: train_loss}]\n"


def text(*, method: str = "tpe", seeds: int = 1, trials: int = 24, seed: int = 0) -> str:
    written = TEXT.format(method=method, seeds=seeds, trials=trials, seed=seed)
    return written + SEVERAL if method == "nsga2" else written


def loss(trial: Trial | NewTrial) -> float:
    """Smallest, 0, at lr = 1e-3, d_model = 48, rg_lru; a little worse for other seeds."""
    lr, d_model = (float(trial.params[name] or 0) for name in ("training.lr", "model.d_model"))
    wrong = 0.0 if trial.params["model.mixer.name"] == "rg_lru" else 0.5
    return (math.log10(lr) + 3) ** 2 + ((d_model - 48) / 40) ** 2 + wrong + 0.01 * trial.seed


def objective(trial: Trial) -> dict[str, float]:
    return {"val_bpb": loss(trial), "train_loss": float(trial.params["model.d_model"])}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/orch.db")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("method", "searcher"),
    [
        ("tpe", "TPESampler"),
        ("gp", "GPSampler"),
        ("cmaes", "CmaEsSampler"),
        ("nsga2", "NSGAIISampler"),
        ("bohb", "TPESampler"),
    ],
)
def test_the_named_searcher_uses_the_budget_and_tries_nothing_twice(store: Store, method: str, searcher: str) -> None:
    sweep = submitted(store, text(method=method, trials=12))
    learner = search(store, sweep, objective)
    trials = store.trials.trials(sweep.id)
    assert learner.searcher == searcher
    assert [trial.number for trial in trials] == list(range(12))
    assert len({trial.config_hash for trial in trials}) == 12


@pytest.mark.parametrize("method", ["tpe", "nsga2", "bohb"])
def test_a_killed_driver_is_followed_by_one_that_knows_all_results(store: Store, method: str) -> None:
    sweep = submitted(store, text(method=method, trials=24))
    for at_most in (9, 5, 10**6):
        search(store, sweep, objective, at_most=at_most)
    trials = store.trials.trials(sweep.id)
    assert len(trials) == len({trial.config_hash for trial in trials}) == 24
    assert {trial.state for trial in trials} == {TrialState.SUCCEEDED}
    assert {trial.attempt for trial in trials} == {1}
    told = [each for each in Learner(sweep, store.trials, FixedClock())._study.trials if each.values]
    assert [each.values[0] for each in told] == [trial.metrics["val_bpb"] for trial in trials]


def test_generations_go_on_where_a_killed_driver_left_them(store: Store) -> None:
    sweep = submitted(store, text(method="nsga2", trials=18))
    search(store, sweep, objective)
    learner = Learner(sweep, store.trials, FixedClock())
    found = [each.system_attrs["NSGAIISampler:generation"] for each in learner._study.trials]
    assert found == [0] * 6 + [1] * 6 + [2] * 6


def test_brackets_stay_when_a_driver_is_followed_by_another(store: Store) -> None:
    sweep = submitted(store, text(method="bohb", trials=16).replace("startup: 6", "startup: 4"))
    search(store, sweep, objective, at_most=10)
    first, second = (Learner(sweep, store.trials, FixedClock()) for _ in range(2))
    first.propose()
    first._study.ask(first._quantities.distributions)  # as a refused proposal, it takes a number of the study
    proposed = first.propose()[0]
    resumed = Learner(sweep, store.trials, FixedClock())
    pruner, later = first._study.pruner, resumed._study.pruner
    assert pruner is not second._study.pruner
    before = pruner.bracket(first._study, first._asked[proposed.config_hash].number)
    assert first._asked[proposed.config_hash].number != resumed._asked[proposed.config_hash].number
    assert before == later.bracket(resumed._study, resumed._asked[proposed.config_hash].number)


def test_bohb_models_what_was_stopped_by_how_far_it_came(store: Store) -> None:
    sweep = submitted(store, text(method="bohb", trials=12))
    *stopped, _ = store.trials.trials(sweep.id)
    for trial in stopped:
        store.trials.start_trial(trial.id, now=NOW)
        for step in (50, 100):
            report = Report(trial_id=trial.id, attempt=1, step=step, metrics={"val_bpb": loss(trial) / step}, at=NOW)
            store.trials.record([report])
        store.trials.end_trial(trial.id, TrialState.STOPPED, reason="", now=NOW)
    told = Learner(sweep, store.trials, FixedClock())._study.trials
    assert [each.state.name for each in told] == ["PRUNED"] * 5 + ["RUNNING"]
    assert all(each.intermediate_values.keys() == {50, 100} for each in told[:5])


def test_the_sampler_sees_groups_of_seeds(store: Store) -> None:
    sweep = submitted(store, text(seeds=2, trials=21))
    search(store, sweep, objective)
    trials = store.trials.trials(sweep.id)
    assert len(trials) == 20  # 21 would split a group
    assert len({trial.config_hash for trial in trials}) == 10
    told = Learner(sweep, store.trials, FixedClock())._study.trials
    means = [(loss(a) + loss(b)) / 2 for a, b in zip(trials[::2], trials[1::2], strict=True)]
    assert [each.value for each in told] == pytest.approx(means)


def test_a_small_space_is_used_up_and_the_search_ends(store: Store) -> None:
    options = "search: {method: tpe, max_trials: 50, startup: 1}"
    sweep = submitted(store, f"name: small\nparameters: {{model.mixer.name: [gru, rg_lru]}}\n{options}\n")
    learner = Learner(sweep, store.trials, FixedClock())
    assert len(learner.propose()) == 1
    assert learner.propose() == []
    assert learner.left == 0


def test_tpe_beats_random_at_equal_trials(store: Store) -> None:
    best: dict[str, list[float]] = {"tpe": [], "random": []}
    for seed in range(20):
        planned = make_plan(load_spec(text(method="random", seed=seed))).trials
        best["random"].append(min(loss(trial) for trial in planned))
        sweep = submitted(store, text(method="tpe", seed=seed))
        search(store, sweep, objective)
        best["tpe"].append(min(map(loss, store.trials.trials(sweep.id))))
    print("median of the best of 24 over 20 seeds:", {name: round(median(found), 4) for name, found in best.items()})
    assert median(best["tpe"]) < median(best["random"])


TWO_METRICS = """\
name: two-metrics
parameters:
  training.lr: {distribution: uniform, min: 1e-3, max: 1.0}
  training.weight_decay: {distribution: uniform, min: 0.0, max: 1.0}
metrics: [{name: val_loss}, {name: train_loss}]
search: {method: nsga2, max_trials: 240, startup: 24, options: {crossover_prob: 0.9}}
"""


def zdt1(trial: Trial) -> dict[str, float]:
    """Zitzler, Deb & Thiele 2000, problem 1, in two variables: its front is f2 = 1 - sqrt(f1), at x2 = 0."""
    first, second = (float(trial.params[f"training.{name}"]) for name in ("lr", "weight_decay"))
    g = 1 + 9 * second
    return {"val_loss": first, "train_loss": g * (1 - math.sqrt(first / g))}


def test_nsga2_finds_the_pareto_set_of_a_problem_whose_front_is_known(store: Store) -> None:
    sweep = submitted(store, TWO_METRICS)
    search(store, sweep, zdt1)

    def distances(trials: list[Trial]) -> list[float]:
        points = {each.id: (each.metrics["val_loss"], each.metrics["train_loss"]) for each in trials}
        front = pareto.front(points, ["minimize", "minimize"])
        return [abs(points[key][1] - (1 - math.sqrt(points[key][0]))) for key in front]

    trials = store.trials.trials(sweep.id)
    early, late = distances(trials[:24]), distances(trials)
    print(f"median distance of the Pareto set to the front: {median(early):.3f} of 24 draws, {median(late):.3f} of 240")
    assert len(late) >= 10
    assert median(late) < 0.1
    assert median(late) < median(early) / 4
    found = sorted(each.metrics["val_loss"] for each in trials if each.metrics["train_loss"] < 1)
    assert found[0] < 0.2, "the set reaches along the front"
    assert found[-1] > 0.8, "the set reaches along the front"
