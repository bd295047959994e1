"""Populations over a real store, real checkpoint files and Ray Tune's own PBT and PB2; only training is a formula."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.cluster.directories import Directories
from orchestrator.cluster.guards import Limits, StopIf
from orchestrator.cluster.logpolicies import LogPolicies
from orchestrator.cluster.messages import Ended, Outcome, Reported, Started
from orchestrator.cluster.population import Population
from orchestrator.cluster.recorder import Recorder, RecordingScheduler
from orchestrator.cluster.trainable import HAPPENING
from orchestrator.lifecycle import TRIAL_ENDS, TrialState
from orchestrator.records import Trial
from orchestrator.settings import Settings
from orchestrator.store import Store, open_store
from tests.support.builders import NOW
from tests.support.learned import FixedClock, submitted
from workloads.checkpoint_files import at_step, digest, latest, steps_in

TEXT = """\
name: population
workload: {{training: {{steps: 60, eval_every: 5}}}}
parameters:
  training.lr: {{distribution: log_uniform_values, min: 1e-4, max: 1.0}}
  training.weight_decay: [0.0, 0.01, 0.1]
  model.mixer.name: [gru, rg_lru]
search: {{method: {method}, max_trials: {size}, seed: 1, options: {{perturbation_interval: 10{more}}}}}
"""


def text(method: str = "pbt", *, size: int = 6, more: str = "") -> str:
    return TEXT.format(method=method, size=size, more=more)


class World:
    """A sweep of a population, and drivers that lead it one after the other."""

    def __init__(self, store: Store, home: Path, written: str) -> None:
        self.store, self.sweep = store, submitted(store, written)
        self.directories = Directories(Settings.from_env({"ORCH_HOME": str(home)}), store.trials)
        self.most_at_once = 0

    @property
    def trials(self) -> list[Trial]:
        return self.store.trials.trials(self.sweep.id)

    def drive(self, *, slots: int = 2, reports: int = 10**6) -> Population:
        """What a driver does, a report of each running trial in turn; stops, as if killed, after `reports`."""
        waiting = deque(sorted(self.store.trials.requeue_trials(self.sweep.id, reason="", now=NOW), key=_step))
        population = Population(self.sweep, self.trials, self.store.trials, self.directories)
        limits = Limits(self.sweep, self.store.trials, FixedClock())
        policies = LogPolicies(self.sweep, self.directories.checkpoints)
        scheduler = RecordingScheduler(
            population,
            Recorder(
                self.store.trials, self.sweep, list(waiting), FixedClock(), limits, policies, leave=lambda node: False
            ),
            self.sweep,
            free_slot=lambda _: None,
            stop_if=StopIf(self.sweep, self.store.trials, self.directories.checkpoints),
            limits=limits,
            again=waiting.append,
        )
        running: deque[tuple[Trial, Iterator[Any]]] = deque()
        while waiting or running:
            while waiting and len(running) < slots:
                row = waiting.popleft()
                _say(scheduler, row.id, Started(where="slot"))
                running.append((row, train(row, self.directories)))
            self.most_at_once = max(self.most_at_once, len(running))
            trial, rows = running.popleft()
            happening = next(rows, Ended(outcome=Outcome.DONE))
            if reports == 0:
                break
            reports -= isinstance(happening, Reported)
            if _say(scheduler, trial.id, happening) == "CONTINUE":
                running.append((trial, rows))
        return population


def _step(trial: Trial) -> int:
    return trial.step


def _say(scheduler: RecordingScheduler, trial_id: int, happening: object) -> str:
    return scheduler.on_trial_result(None, SimpleNamespace(trial_id=f"{trial_id}.1"), {HAPPENING: happening})


def train(trial: Trial, directories: Directories) -> Iterator[Reported]:
    """Loss falls fastest at lr = 0.01; a checkpoint holds it, and is there before its report."""
    directory = directories.checkpoints(trial)
    directory.mkdir(parents=True, exist_ok=True)
    found, parent = latest(directory), directories.parent(trial)
    if found is None and parent is not None:
        found = at_step(parent.checkpoints, parent.step)
    state = json.loads(found.read_text()) if found else {"step": 0, "loss": 10.0, "rates": []}
    while state["step"] < 60:
        rate = trial.config["training"]["lr"]
        speed = 0.2 / (1 + (math.log10(rate) + 2) ** 2)
        state = {"step": state["step"] + 5, "loss": state["loss"] * (1 - speed), "rates": [*state["rates"], rate]}
        partial = directory / "partial"
        partial.write_text(json.dumps(state))
        partial.rename(directory / f"step-{state['step']:09d}-{digest(partial)}.ckpt")
        for old in sorted(directory.glob("step-*.ckpt"))[:-2]:
            old.unlink()
        yield Reported(step=state["step"], metrics={"val_bpb": state["loss"]}, checkpoint=str(directory))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/orch.db")
    yield opened
    opened.close()


@pytest.mark.parametrize(("method", "named"), [("pbt", "PopulationBasedTraining"), ("pb2", "PB2")])
@pytest.mark.parametrize("slots", [2, 6])
def test_the_worst_go_on_from_the_best_and_the_record_says_all(
    store: Store, tmp_path: Path, method: str, named: str, slots: int
) -> None:
    world = World(store, tmp_path, text(method))
    first = {trial.id: dict(trial.params) for trial in world.trials}
    population = world.drive(slots=slots)
    assert population.name == named
    assert world.most_at_once == slots
    assert {(trial.state, trial.step) for trial in world.trials} == {(TrialState.SUCCEEDED, 60)}
    perturbed = [trial for trial in world.trials if trial.perturbations]
    assert perturbed
    for trial in perturbed:
        last = json.loads(at_step(world.directories.checkpoints(trial), 60).read_text())
        taken = trial.perturbations[-1]
        donor = store.trials.trial(taken.parent_trial_id)
        assert donor.id != trial.id
        assert last["rates"][taken.parent_step // 5 :] == [trial.config["training"]["lr"]] * (
            12 - taken.parent_step // 5
        )
        assert trial.params["training.lr"] == trial.config["training"]["lr"]
        assert 1e-4 <= float(trial.params["training.lr"] or 0) <= 1.0
        started = {name: pair[0] for each in reversed(trial.perturbations) for name, pair in each.changed.items()}
        assert started.items() <= first[trial.id].items()
        events = [event.reason for event in store.sweeps.events(sweep_id=world.sweep.id) if event.trial_id == trial.id]
        assert any(f"{named}: goes on from trial {donor.id} at step {taken.parent_step}" in each for each in events)
        assert trial.identity is None


def test_pbt_ends_better_than_the_same_trials_by_themselves(store: Store, tmp_path: Path) -> None:
    def mean_loss(name: str, more: str) -> float:
        world = World(store, tmp_path / name, text(size=8, more=more))
        world.drive(slots=8)
        return sum(float(trial.metrics["val_bpb"]) for trial in world.trials) / 8

    # A burn-in as long as the trial leaves no decision
    alone, together = mean_loss("alone", ", burn_in_period: 100"), mean_loss("together", "")
    print(f"mean loss of eight trials: {alone:.3f} by themselves, {together:.3f} as a population")
    assert together < 0.7 * alone


@pytest.mark.parametrize("method", ["pbt", "pb2"])
def test_drivers_that_are_killed_lose_nothing_and_run_nothing_twice(store: Store, tmp_path: Path, method: str) -> None:
    world = World(store, tmp_path, text(method))
    for _ in range(4):
        world.drive(reports=14)
    world.drive()
    assert {(trial.state, trial.step) for trial in world.trials} == {(TrialState.SUCCEEDED, 60)}
    assert len({trial.config_hash for trial in world.trials}) == 6
    assert world.most_at_once == 2
    perturbed = [trial for trial in world.trials if trial.perturbations]
    assert perturbed
    for trial in perturbed:
        for each in trial.perturbations:
            points = store.trials.curve(trial.id, "val_bpb", attempts=range(each.attempt, trial.attempt + 1))
            assert min(step for step, _ in points) > each.parent_step


def test_a_new_driver_knows_what_the_old_one_knew(store: Store, tmp_path: Path) -> None:
    world = World(store, tmp_path, text("pb2"))
    old = world.drive(slots=6, reports=45)
    assert any(trial.perturbations for trial in world.trials)
    new = Population(world.sweep, world.trials, store.trials, world.directories)

    def known(population: Population) -> dict[str, Any]:
        return {
            member.trial_id: (state.last_score, state.last_perturbation_time, _path(state.last_checkpoint))
            for member, state in population._scheduler._trial_state.items()
        }

    assert known(new) == known(old)
    assert {m.trial_id: m.config for m in new.get_trials()} == {
        m.trial_id: pytest.approx(m.config, abs=1e-6) for m in old.get_trials()
    }


def _path(kept: Any) -> Path | None:
    return kept.path if kept else None


def test_what_explores_to_no_valid_configuration_is_exploited_as_it_is(store: Store, tmp_path: Path) -> None:
    world = World(store, tmp_path, text() + 'constraints: ["training.lr < 0.02"]\n')
    world.drive()
    assert all(float(trial.params["training.lr"] or 0) < 0.02 for trial in world.trials)


def test_a_checkpoint_that_others_need_is_theirs(store: Store, tmp_path: Path) -> None:
    world = World(store, tmp_path, text())
    world.drive(slots=6, reports=30)
    pending = [trial for trial in world.trials if trial.perturbations and trial.state not in TRIAL_ENDS]
    assert pending
    for trial in pending:
        parent = world.directories.parent(trial)
        assert parent is not None
        assert Path(parent.checkpoints).is_relative_to(world.directories.of(trial))
        assert steps_in(parent.checkpoints) == [parent.step]
