"""Every way to search and every way to stop early, each in a sweep of its own on a real cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, get_args

import pytest

from orchestrator.lifecycle import TRIAL_ENDS, Actor, SweepState, TrialState
from orchestrator.records import Sweep
from orchestrator.spec.model import EarlyTerminate, Search
from tests.support.builders import NOW
from tests.support.ray_cluster import PATIENCE_S, Lab, wait_for

WORKLOAD = {
    "task": {"name": "bytes_lm"},
    "model": {"d_model": 16, "n_layers": 1, "mixer": {"name": "gru"}},
    "training": {"batch_size": 4, "sequence_length": 32, "steps": 30, "eval_every": 10, "figures": False},
}
RANGES = {
    "training.lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1},
    "training.weight_decay": {"min": 0.0, "max": 1.0},
}
LEARNING_RATES = [1e-2, 3e-2, 5e-3, 1e-6, 2e-6]


@dataclass(frozen=True)
class Case:
    """A sweep. trials: that it comes to. says: in its driver's log. killed: its driver is, once, in mid-search."""

    method: str
    trials: int
    says: str
    search: Mapping[str, Any] = field(default_factory=dict)
    rule: Mapping[str, Any] = field(default_factory=lambda: {"type": "none"})
    killed: bool = False
    words: Mapping[str, Any] = field(default_factory=lambda: {"parameters": RANGES})

    def file(self) -> dict[str, Any]:
        search = {"method": self.method, **self.search}
        named = {"name": self.method, "workload": WORKLOAD, "search": search, "early_terminate": dict(self.rule)}
        return named | dict(self.words)


def rule(kind: str, **words: Any) -> dict[str, Any]:
    return {"type": kind, "grace_steps": 10, "reduction_factor": 2, **words}


POPULATION = {"max_trials": 3, "options": {"perturbation_interval": 10}}
TWO_METRICS = {"parameters": RANGES, "metrics": [{"name": "val_bpb"}, {"name": "train_loss"}]}
LISTED = {"configs": [{"training.lr": lr} for lr in LEARNING_RATES]}
CASES = (
    Case("grid", 3, "early stopping: FIFOScheduler", words={"parameters": {"training.lr": LEARNING_RATES[:3]}}),
    Case("random", 6, "early stopping: AsyncHyperBandScheduler", {"max_trials": 6}, rule("asha"), killed=True),
    Case("sobol", 6, "early stopping: HyperbandPruner", {"max_trials": 6}, rule("hyperband")),
    Case("list", 5, "early stopping: MedianStoppingRule", LISTED, rule("median", options={"min_samples_required": 2}),
         words={}),
    Case("tpe", 5, "TPESampler proposes for val_bpb", {"max_trials": 5, "startup": 2}, killed=True),
    Case("nsga2", 5, "NSGAIISampler proposes for val_bpb, train_loss", {"max_trials": 5, "startup": 2},
         killed=True, words=TWO_METRICS),
    Case("gp", 3, "GPSampler proposes for val_bpb", {"max_trials": 3, "startup": 2}),
    Case("pbt", 3, "PopulationBasedTraining decides on a population of 3", POPULATION, killed=True),
    Case("cmaes", 4, "CmaEsSampler proposes for val_bpb", {"max_trials": 4, "startup": 2}),
    Case("pb2", 3, "PB2 decides on a population of 3", POPULATION),
    Case("bohb", 4, "TPESampler proposes for val_bpb", {"max_trials": 4, "startup": 2}, rule("hyperband")),
)  # fmt: skip


def test_there_is_a_case_of_every_method_and_every_rule() -> None:
    assert {case.method for case in CASES} == set(get_args(Search.model_fields["method"].annotation))
    assert {case.rule["type"] for case in CASES} == set(get_args(EarlyTerminate.model_fields["type"].annotation))


@pytest.mark.timeout(900)
def test_each_runs_its_sweep_and_loses_and_repeats_nothing_when_its_driver_is_killed(lab: Lab) -> None:
    sweeps = [(case, lab.submitted(1, **case.file())) for case in CASES]
    # Two cores: two drivers side by side
    with ThreadPoolExecutor(2) as both:
        list(both.map(lambda half: led(lab, half), (sweeps[::2], sweeps[1::2])))
    logs = "".join(path.read_text() for path in lab.settings.home.glob("driver-*.log"))
    for case, sweep in sweeps:
        trials = lab.trials(sweep)
        assert case.says in logs
        assert {each.state for each in trials} <= {TrialState.SUCCEEDED, TrialState.STOPPED}, (case.method, trials)
        assert [each.number for each in trials] == list(range(case.trials)), "none lost, none beyond the budget"
        assert len({each.config_hash for each in trials}) == case.trials, "no configuration twice"
        each_ends_once_and_one_runs_at_a_time(lab, sweep)
        stopped = [each.reason for each in trials if each.state is TrialState.STOPPED]
        assert all(re.match(f"stopped by (the )?{case.rule['type']}", why, re.IGNORECASE) for why in stopped), stopped
        assert stopped or case.rule["type"] == "none" or case.method == "bohb", case.method
        assert any(each.perturbations for each in trials) == (case.method in ("pbt", "pb2"))


def led(lab: Lab, cases: Sequence[tuple[Case, Sweep]]) -> None:
    """Leads sweeps to their ends, one after the other on one slot; kills drivers in mid-search on the way."""
    waiting, to_kill = list(cases), [(case, sweep) for case, sweep in cases if case.killed]
    for case, sweep in to_kill:
        driver = lab.drive(*(each for _, each in waiting))
        wait_for(lambda sweep=sweep: under_way(lab, sweep), f"a {case.method} search under way", driver)
        driver.kill()
        driver.wait()
        ended = sum(trial.state in TRIAL_ENDS for trial in lab.trials(sweep))
        assert ended < case.trials, "it was to be killed before its end"
        # As the coordinator does when a driver is lost
        lost = lab.store.sweeps.sweep(sweep.id)
        lost = lab.store.sweeps.move_sweep(lost, SweepState.QUEUED, actor=Actor.COORDINATOR, reason="lost", now=NOW)
        lab.start(lost, 1)
        waiting = waiting[waiting.index((case, sweep)) :]
    assert lab.drive(*(each for _, each in waiting)).wait(timeout=PATIENCE_S) == 0


def under_way(lab: Lab, sweep: Sweep) -> bool:
    """Two trials have ended, or two of a population have changed."""
    return sum(each.state in TRIAL_ENDS or bool(each.perturbations) for each in lab.trials(sweep)) >= 2


def each_ends_once_and_one_runs_at_a_time(lab: Lab, sweep: Sweep) -> None:
    running: set[int] = set()
    ended = []
    for event in lab.store.sweeps.events(sweep_id=sweep.id):
        if event.trial_id is None:
            continue
        running.discard(event.trial_id)
        if event.what.endswith("-> running"):
            running.add(event.trial_id)
        elif event.what.rpartition(" ")[2] in TRIAL_ENDS:
            ended.append(event.trial_id)
        assert len(running) <= 1, event
    assert sorted(ended) == [trial.id for trial in lab.trials(sweep)]
