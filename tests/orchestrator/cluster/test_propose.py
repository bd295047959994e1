"""Searchers that learn, over a real store and a closed-form objective: no Ray, no training."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from statistics import median

import pytest

from orchestrator.cluster.propose import Learner
from orchestrator.lifecycle import TRIAL_ENDS, TrialState
from orchestrator.planning import make_plan
from orchestrator.records import NewSweep, Report, Trial
from orchestrator.spec import load_spec
from orchestrator.store import Store, open_store

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TEXT = """\
name: learned
parameters:
  training.lr: {{distribution: log_uniform_values, min: 1e-5, max: 1.0}}
  model.d_model: {{min: 8, max: 128}}
  model.mixer.name: [gru, rg_lru]
seeds: {seeds}
search: {{method: {method}, max_trials: {trials}, seed: {seed}, startup: 6}}
"""


class FixedClock:
    def now(self) -> datetime:
        return NOW


def objective(trial: Trial) -> float:
    """Smallest, 0, at lr = 1e-3, d_model = 48, rg_lru; a little worse for other seeds."""
    lr, d_model = float(trial.params["training.lr"]), float(trial.params["model.d_model"])
    wrong = 0.0 if trial.params["model.mixer.name"] == "rg_lru" else 0.5
    return (math.log10(lr) + 3) ** 2 + ((d_model - 48) / 40) ** 2 + wrong + 0.01 * trial.seed


def submitted(store: Store, **words):
    spec = load_spec(TEXT.format(**{"seeds": 1, "trials": 24, "seed": 0, "method": "tpe"} | words))
    new = NewSweep(
        name=spec.name, project=spec.project, spec=spec.model_dump(mode="json"), source="", priority=50,
        metric="val_bpb", goal="minimize", user="u",
    )  # fmt: skip
    return store.sweeps.add_sweep(new, make_plan(spec).trials, now=NOW)


def finish(store: Store, trial: Trial) -> None:
    store.trials.start_trial(trial.id, now=NOW)
    store.trials.record([Report(trial_id=trial.id, attempt=1, step=1, metrics={"val_bpb": objective(trial)}, at=NOW)])
    store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)


def run(store: Store, sweep, *, at_most: int = 10**6) -> None:
    """What a driver does, one trial at a time; stops, as if killed, after `at_most`."""
    learner = Learner(sweep, store.trials, FixedClock())
    waiting = [trial for trial in store.trials.trials(sweep.id) if trial.state not in TRIAL_ENDS]
    for _ in range(at_most):
        if not waiting:
            waiting = learner.propose()
        if not waiting:
            return
        trial = waiting.pop(0)
        finish(store, trial)
        learner.finished(trial)


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/orch.db")
    yield opened
    opened.close()


@pytest.mark.parametrize("method", ["tpe", "gp", "cmaes"])
def test_the_budget_is_used_and_nothing_is_tried_twice(store, method):
    sweep = submitted(store, method=method, trials=16)
    run(store, sweep)
    trials = store.trials.trials(sweep.id)
    assert [trial.number for trial in trials] == list(range(16))
    assert len({trial.config_hash for trial in trials}) == 16


def test_a_killed_driver_is_followed_by_one_that_knows_all_results(store):
    sweep = submitted(store, trials=20)
    run(store, sweep, at_most=9)
    run(store, sweep, at_most=4)
    run(store, sweep)
    trials = store.trials.trials(sweep.id)
    assert len(trials) == len({trial.config_hash for trial in trials}) == 20
    assert {trial.state for trial in trials} == {TrialState.SUCCEEDED}


def test_the_sampler_sees_groups_of_seeds(store):
    sweep = submitted(store, seeds=2, trials=21)
    run(store, sweep)
    trials = store.trials.trials(sweep.id)
    assert len(trials) == 20  # 21 would split a group
    assert len({trial.config_hash for trial in trials}) == 10
    learner = Learner(sweep, store.trials, FixedClock())
    assert len(learner._study.trials) == 10


def test_a_small_space_is_used_up_and_the_search_ends(store):
    search = "search: {method: tpe, max_trials: 50, startup: 1}"
    text = f"name: small\nparameters: {{model.mixer.name: [gru, rg_lru]}}\n{search}\n"
    spec = load_spec(text)
    new = NewSweep(
        name="small", project="p", spec=spec.model_dump(mode="json"), source="", priority=50,
        metric="val_bpb", goal="minimize", user="u",
    )  # fmt: skip
    sweep = store.sweeps.add_sweep(new, make_plan(spec).trials, now=NOW)
    learner = Learner(sweep, store.trials, FixedClock())
    assert len(learner.propose()) == 1
    assert learner.propose() == []
    assert learner.left == 0


def test_tpe_beats_random_at_equal_trials(tmp_path):
    best = {"tpe": [], "random": []}
    for seed in range(8):
        for method in best:
            store = open_store(f"sqlite:///{tmp_path}/{method}-{seed}.db")
            sweep = submitted(store, method=method, seed=seed)
            if method == "tpe":
                run(store, sweep)
            best[method].append(min(map(objective, store.trials.trials(sweep.id))))
            store.close()
    print({method: round(median(values), 4) for method, values in best.items()})
    assert median(best["tpe"]) < median(best["random"])
