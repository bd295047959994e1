"""A seed race over a real store, driven as a driver would; no Ray, no training."""

from __future__ import annotations

import pytest

from orchestrator import report
from orchestrator.board import leaderboard
from orchestrator.cluster.race import Race, race_of
from orchestrator.lifecycle import TRIAL_ENDS, TrialState
from orchestrator.planning import make_plan
from orchestrator.records import NewSweep, Report, Trial
from orchestrator.spec import load_spec
from orchestrator.store import Store, open_store
from tests.support.builders import NOW
from tests.support.clock import FakeClock

TEXT = """\
name: race
parameters: {training.lr: [1e-1, 1e-2, 1e-3]}
seeds: {count: 6, policy: race}
"""
EFFECT = {0.1: 5.0, 0.01: 0.0, 0.001: 0.0}
LUCK = [0.3, -0.2, 0.1, -0.4, 0.2, 0.0]


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/orch.db")
    yield opened
    opened.close()


def submitted(store: Store, text: str = TEXT):
    spec = load_spec(text)
    new = NewSweep(
        name=spec.name, project=spec.project, spec=spec.model_dump(mode="json"), source="", priority=50,
        metric="val_bpb", goal="minimize", user="u",
    )  # fmt: skip
    return store.sweeps.add_sweep(new, make_plan(spec).trials, now=NOW)


def value(trial: Trial) -> float:
    rate = float(trial.params["training.lr"])
    wiggle = (1 if rate == 0.01 else -1) * LUCK[(trial.seed * 5 + 1) % 6] / 2
    return 10 + EFFECT[rate] + LUCK[trial.seed] + wiggle


def finish(store: Store, trial: Trial) -> None:
    store.trials.start_trial(trial.id, now=NOW)
    store.trials.record([Report(trial_id=trial.id, attempt=1, step=1, metrics={"val_bpb": value(trial)}, at=NOW)])
    store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)


def run(store: Store, sweep, *, at_most: int = 10**6) -> None:
    """One trial at a time; stops, as if killed, after `at_most`."""
    race = Race(sweep, store.trials, FakeClock())
    for _ in range(at_most):
        waiting = [trial for trial in store.trials.trials(sweep.id) if trial.state not in TRIAL_ENDS]
        waiting = waiting or race.propose()
        if not waiting:
            assert race.left == 0
            return
        assert race.left > 0
        finish(store, waiting[0])
        race.finished(waiting[0])


def seeds_by_rate(store: Store, sweep) -> dict[float, list[int]]:
    found: dict[float, list[int]] = {}
    for trial in store.trials.trials(sweep.id):
        found.setdefault(float(trial.params["training.lr"]), []).append(trial.seed)
    return found


def test_those_in_the_lead_get_further_seeds_and_the_beaten_none(store):
    sweep = submitted(store)
    run(store, sweep)
    assert seeds_by_rate(store, sweep) == {0.1: [0, 1, 2], 0.01: [*range(6)], 0.001: [*range(6)]}
    trials = store.trials.trials(sweep.id)
    assert [trial.number for trial in trials] == [*range(15)]
    assert len({(trial.config_hash, trial.seed) for trial in trials}) == 15


def test_a_killed_driver_is_followed_by_one_that_goes_on_with_the_same_race(store):
    sweep = submitted(store)
    for at_most in (5, 6, 1):
        run(store, sweep, at_most=at_most)
    run(store, sweep)
    assert seeds_by_rate(store, sweep) == {0.1: [0, 1, 2], 0.01: [*range(6)], 0.001: [*range(6)]}


def test_what_cannot_be_told_apart_is_reported_as_a_tie(store):
    sweep = submitted(store)
    run(store, sweep)
    race = report.sweep_document(sweep, store.trials.trials(sweep.id), 0).race
    assert race is not None
    assert (race.tie, race.open, race.alpha, race.seeds) == (True, False, 0.05, 6)
    assert {entry.params["training.lr"] for entry in race.leaders} == {0.01, 0.001}
    assert {entry.seeds for entry in race.leaders} == {6}
    (beaten,) = race.beaten
    assert (beaten.params["training.lr"], beaten.seeds) == (0.1, 3)
    assert beaten.by["training.lr"] in (0.01, 0.001)
    assert beaten.p <= 0.05
    rows = leaderboard(store.sweeps, store.board, sweep="race").rows
    assert [(row.rank, row.tied) for row in rows] == [(1, True), (1, True), (3, False)]


def test_a_race_with_a_clear_winner_ends_early(store):
    sweep = submitted(store, TEXT.replace("[1e-1, 1e-2, 1e-3]", "[1e-1, 1e-2]"))
    run(store, sweep)
    assert seeds_by_rate(store, sweep) == {0.1: [0, 1, 2], 0.01: [0, 1, 2]}
    document = report.sweep_document(sweep, store.trials.trials(sweep.id), 0)
    assert document.race is not None
    assert (document.race.tie, [entry.params for entry in document.race.leaders]) == (False, [{"training.lr": 0.01}])


def test_a_sweep_whose_seeds_are_no_rungs_has_no_race(store):
    sweep = submitted(store, TEXT.replace(", policy: race", ""))
    assert race_of(sweep, store.trials, FakeClock()) is None
    assert report.sweep_document(sweep, store.trials.trials(sweep.id), 0).race is None
