"""The simulator counts right where one can count by hand, and what the policy promises holds over time."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.errors import BadInput
from orchestrator.policy import Rules
from orchestrator.simulate import (
    START_S,
    Simulation,
    compare,
    even_shares,
    fifo,
    jain,
    orchs_own,
    priority_only,
    shortest_s,
)
from orchestrator.traces import Arrival, Recipe, drawn, read_trace

HOUR = 3600.0


def sweep(at_s=0.0, *, project="p", priority=50, gpus=1.0, trials=1, trial_s=HOUR) -> Arrival:
    return Arrival(at_s, project, "u", priority, gpus, (trial_s,) * trials)


def simulated(policy, arrivals, gpus, tick_s=1.0):
    return Simulation(arrivals, gpus, Rules(), tick_s).run("x", policy)


def test_one_sweep_takes_its_trials_by_turns():
    outcome = simulated(fifo, [sweep(trials=4)], 2)
    assert outcome.hours * HOUR == pytest.approx(2 * HOUR + START_S)
    assert outcome.packing == pytest.approx(2 * HOUR / (2 * HOUR + START_S))
    assert (outcome.preemptions, outcome.fairness, outcome.waits["all"].longest_h) == (0, 1.0, 0.0)


def test_nobody_overtakes_in_fifo_and_who_fits_does_by_priority():
    arrivals = [sweep(gpus=3.0), sweep(1.0, gpus=4.0), sweep(2.0)]
    waits = {
        name: simulated(policy, arrivals, 4).waits["all"].longest_h
        for name, policy in (("fifo", fifo), ("priority", priority_only))
    }
    assert waits["fifo"] == pytest.approx(2 + (2 * START_S - 2) / HOUR, abs=2e-3)
    assert waits["priority"] == pytest.approx(1 + (2 + 2 * START_S) / HOUR, abs=0.02)


def test_a_stopped_trial_goes_on_from_its_last_checkpoint():
    outcome = simulated(orchs_own(Rules()), [sweep(priority=10), sweep(1000.0, priority=90)], 1)
    assert outcome.preemptions == 1
    assert outcome.lost * 2 * HOUR == pytest.approx(1000 - 900, abs=2)
    assert outcome.hours * HOUR == pytest.approx(2 * HOUR + 3 * START_S + 100, abs=30)


def test_the_shortest_time_is_bounded_by_late_work_and_by_long_trials():
    assert shortest_s([sweep(trials=4)], 2) == 2 * HOUR
    assert shortest_s([sweep(), sweep(5 * HOUR, trials=2)], 1) == 7 * HOUR
    assert shortest_s([sweep(trial_s=9 * HOUR)], 100) == 9 * HOUR


def test_even_shares_give_nobody_more_than_wanted():
    assert even_shares({"a": 1, "b": 10, "c": 10}, 12) == {"a": 1, "b": 5.5, "c": 5.5}
    assert even_shares({"a": 1, "b": 2}, 12) == {"a": 1, "b": 2}


def test_jains_index_at_its_ends():
    assert jain([2, 2, 2]) == 1
    assert jain([1, 0, 0, 0]) == 0.25


RECIPE = Recipe(
    seed=3,
    sweeps=150,
    span_hours=20,
    projects={"a": 8, "b": 1, "c": 1},
    users=2,
    priorities={30: 1, 50: 4, 70: 1},
    gpus={1: 6, 2: 2, 4: 2, 16: 1},
    trials={1: 1, 4: 1, 8: 1},
    trial_hours=0.5,
)


def test_a_recipe_gives_the_same_sweeps_again():
    assert drawn(RECIPE) == drawn(RECIPE)
    assert drawn(RECIPE) != drawn(RECIPE.model_copy(update={"seed": 4}))


@pytest.mark.parametrize("seed", range(3))
def test_every_sweep_is_served_and_the_pool_is_used_while_anybody_waits(seed):
    """The largest trials take the whole pool, which is where room for one costs most: never more than FIFO pays."""
    arrivals = drawn(RECIPE.model_copy(update={"seed": seed}))
    first, _, own = compare(arrivals, 16, tick_s=60.0)
    assert own.waits["all"].sweeps == len(arrivals)
    assert own.utilisation > max(0.8, first.utilisation)
    assert own.packing > first.packing
    assert own.waits["8 and more"].p50_h < first.waits["8 and more"].p50_h


def test_a_project_that_floods_the_queue_gets_no_more_than_its_share():
    flood = [sweep(project="flood", trials=4) for _ in range(40)]
    few = [sweep(HOUR / 2 + i, project="few", trials=4) for i in range(8)]
    outcomes = {each.policy: each for each in compare([*flood, *few], 8, tick_s=60.0)}
    assert outcomes["orch"].fairness > 0.9
    assert outcomes["fifo"].fairness < 0.7


def test_a_stream_of_higher_priority_does_not_keep_a_sweep_waiting_for_ever():
    stream = [sweep(at * HOUR, priority=60) for at in range(60)]
    patient = sweep(0.5 * HOUR, priority=50, project="q", trials=2)
    arrivals = sorted([*stream, patient], key=lambda arrival: arrival.at_s)
    outcome = simulated(orchs_own(Rules()), arrivals, 1)
    # Ten points of priority are ten hours of waiting; nothing that came later than that is served before
    assert 9 < outcome.waits["all"].longest_h < 16
    assert simulated(priority_only, arrivals, 1).waits["all"].longest_h > 50


def test_a_stream_of_small_work_does_not_keep_a_big_trial_waiting_for_ever():
    small = [sweep(at * 0.25 * HOUR, project=name) for at, name in zip(range(400), itertools.cycle("ab"))]
    arrivals = sorted([*small, sweep(1.0, gpus=4.0, project="big")], key=lambda arrival: arrival.at_s)
    outcome = simulated(orchs_own(Rules()), arrivals, 4, tick_s=60.0)
    assert outcome.waits["under 8"].longest_h < 12
    assert outcome.utilisation > 0.9
    assert simulated(priority_only, arrivals, 4).waits["all"].longest_h > 50


@pytest.mark.parametrize("text", ["recipe: {sweeps: 3}", "[1]", "a: b: c", "sweeps: []", "sweeps: [{trial_s: -1}]"])
def test_what_is_no_trace_is_told_where_it_is_wrong(tmp_path, text):
    file = tmp_path / "trace.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match=r"trace\.yaml: "):
        read_trace(file)


def test_a_trace_may_list_its_sweeps(tmp_path):
    file = tmp_path / "trace.yaml"
    file.write_text("sweeps: [{at_s: 5, trial_s: 60, trials: 2}, {trial_s: 30, gpus: 0.5}]")
    assert [(a.at_s, a.gpus, a.trials_s) for a in read_trace(file)] == [(0, 0.5, (30,)), (5, 1, (60, 60))]
