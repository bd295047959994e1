"""Every search method and every rule of early stopping, as real sweeps on a real cluster."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.cluster.directories import Directories
from orchestrator.lifecycle import TrialState
from orchestrator.records import Sweep
from tests.support.learned import submitted
from tests.support.ray_cluster import PATIENCE_S, Lab, tiny_config, wait_for

LR: dict[str, Any] = {"training.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 3e-2}}
DECAY: dict[str, Any] = {"training.weight_decay": {"min": 0.0, "max": 0.1}}
HYPERBAND = {"type": "hyperband", "grace_steps": 10, "reduction_factor": 2}

METHODS: dict[str, dict[str, Any]] = {
    "list": {"search": {"method": "list", "configs": [{"training.lr": lr} for lr in (1e-2, 1e-3)]}},
    "random": {
        "search": {"method": "random", "max_trials": 5},
        "early_terminate": {"type": "median", "grace_steps": 10},
    },
    "sobol": {"search": {"method": "sobol", "max_trials": 4}, "early_terminate": HYPERBAND},
    "tpe": {"search": {"method": "tpe", "max_trials": 4, "startup": 2, "options": {"n_ei_candidates": 8}}},
    "gp": {"search": {"method": "gp", "max_trials": 4, "startup": 2}},
    "cmaes": {"search": {"method": "cmaes", "max_trials": 4, "startup": 2}},
    "nsga2": {
        "search": {"method": "nsga2", "max_trials": 4, "startup": 2},
        "metrics": [{"name": "val_bpb"}, {"name": "grad_norm"}],
    },
    "bohb": {"search": {"method": "bohb", "max_trials": 5, "startup": 2}, "early_terminate": HYPERBAND},
    "pb2": {"search": {"method": "pb2", "max_trials": 3, "options": {"perturbation_interval": 10}}},
}
SAYS = {
    "list": "early stopping: RunAll",
    "random": "early stopping: Median",
    "sobol": "early stopping: Hyperband",
    "tpe": "TPESampler proposes",
    "gp": "GPSampler proposes",
    "cmaes": "CmaEsSampler proposes",
    "nsga2": "NSGAIISampler proposes for val_bpb, grad_norm",
    "bohb": "TPESampler proposes",
    "pb2": "PB2 decides on a population of 3",
}


def submit(lab: Lab, name: str, words: dict[str, Any], **training: Any) -> Sweep:
    parameters = {} if name == "list" else LR | DECAY
    written = {"name": name, "workload": tiny_config(**training), "parameters": parameters, "seeds": 1} | words
    return lab.start(submitted(lab.store, json.dumps(written)), slots=2)


def test_every_method_runs_with_the_searcher_that_it_names(lab: Lab) -> None:
    sweeps = {name: submit(lab, name, words) for name, words in METHODS.items()}
    driver = lab.drive(*sweeps.values())
    assert driver.wait(timeout=2 * PATIENCE_S) == 0
    log = lab.driver_log(*sweeps.values()).read_text()
    for name, sweep in sweeps.items():
        trials = lab.trials(sweep)
        words = METHODS[name]["search"]
        assert len(trials) == words.get("max_trials", 2), name
        assert {trial.state for trial in trials} <= {TrialState.SUCCEEDED, TrialState.STOPPED}, name
        assert len({trial.config_hash for trial in trials}) == len(trials), name
        assert SAYS[name] in log, name
        for trial in trials:
            if trial.state is TrialState.STOPPED:
                said = {"random": "by the median rule", "sobol": "by Hyperband", "bohb": "by Hyperband"}[name]
                assert said in trial.reason


def test_a_killed_population_goes_on_with_what_was_decided(lab: Lab) -> None:
    options = {"perturbation_interval": 20, "quantile_fraction": 0.5}
    words = {"search": {"method": "pbt", "max_trials": 4, "seed": 3, "options": options}}
    sweep = submit(lab, "pbt", words, steps=100, eval_every=10)
    driver = lab.drive(sweep)
    wait_for(lambda: any(t.perturbations and t.step > 40 for t in lab.trials(sweep)), "a perturbation", driver)
    driver.kill()
    driver.wait()
    before = {trial.id: trial for trial in lab.trials(sweep)}
    assert lab.drive(sweep).wait(timeout=PATIENCE_S) == 0
    trials = lab.trials(sweep)
    assert [(trial.id, trial.state, trial.step) for trial in trials] == [
        (trial_id, TrialState.SUCCEEDED, 100) for trial_id in before
    ]
    directories = Directories(lab.settings, lab.store.trials)
    for trial in trials:
        known = before[trial.id].perturbations
        assert trial.perturbations[: len(known)] == known
        assert trial.checkpoint_path == str(directories.checkpoints(trial))
        written = json.loads((lab.directory(trial) / "config.json").read_text())
        assert written["training"]["lr"] == trial.config["training"]["lr"] == trial.params["training.lr"]
        if trial.perturbations:
            last = trial.perturbations[-1]
            assert min(lab.steps_by_attempt(trial)[last.attempt]) == last.parent_step + 10
    assert "PopulationBasedTraining decides on a population of 4" in lab.driver_log(sweep).read_text()
