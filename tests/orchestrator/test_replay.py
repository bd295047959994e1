"""Replays of early stopping: the decisions of Ray Tune's schedulers, and figures that can be worked out by hand."""

from __future__ import annotations

import random

import pytest

from orchestrator.cluster.hyperband import hyperband as scheduler_of
from orchestrator.cluster.search import STEP, Asha, Known, Median
from orchestrator.replay import asha, hyperband, median_rule, replay
from orchestrator.spec.model import EarlyTerminate

METRIC, STEPS = "val_loss", range(10, 101, 10)


def curves(seed: int, count: int = 24) -> list[list[tuple[int, float]]]:
    rng = random.Random(seed)
    levels = [rng.uniform(1, 3) for _ in range(count)]
    return [[(step, level + 2 / step**0.5 + rng.gauss(0, 0.1)) for step in STEPS] for level in levels]


def tunes(scheduler, count: int):
    for trial in range(count):
        scheduler.on_trial_add(None, Known(str(trial)))

    def rule(trial: int, step: int, value: float) -> bool:
        return scheduler.on_trial_result(None, Known(str(trial)), {STEP: step, METRIC: value}) == "STOP" and step < 100

    return rule


def tunes_asha():
    words = {"time_attr": STEP, "metric": METRIC, "mode": "min"}
    return tunes(Asha(**words, grace_period=10, reduction_factor=3, max_t=100), 24)


def tunes_median():
    # Tune's rule counts who came before it; all trials are told to it as they come
    return tunes(Median(time_attr=STEP, metric=METRIC, mode="min", grace_period=30), 0)


def optunas_hyperband(grace: int, factor: int):
    rule = EarlyTerminate(type="hyperband", grace_steps=grace, reduction_factor=factor)
    return tunes(scheduler_of(rule, name="curves", metric=METRIC, goal="minimize", max_steps=100), 24)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("told", "plain"),
    [
        (tunes_asha, lambda: asha(10, 3, 100)),
        (lambda: optunas_hyperband(10, 3), lambda: hyperband(10, 3, 100, "curves")),
        (lambda: optunas_hyperband(20, 2), lambda: hyperband(20, 2, 100, "curves")),
        (tunes_median, lambda: median_rule(30)),
    ],
    ids=["asha", "hyperband", "hyperband of two", "median"],
)
def test_the_rules_decide_as_ray_tunes_and_optunas_classes_do(told, plain, seed):
    assert replay(curves(seed), told, replays=3) == replay(curves(seed), plain, replays=3)


def test_curves_that_never_cross_keep_the_winner_and_save_what_the_rungs_cut():
    flat = [[(step, float(level)) for step in STEPS] for level in range(9)]
    found = replay(flat, lambda: asha(10, 3, 100))
    assert found is not None
    assert (found.replays, found.kept, found.curves) == (20, 20, 9)
    # At best one in three passes the rung at 10 and one in nine that at 30; what comes early passes unopposed
    assert 0.3 < found.saved < 1 - (6 * 10 + 2 * 30 + 100) / 900


def test_a_late_bloomer_is_lost_and_told():
    late = [[(step, float(level)) for step in STEPS] for level in range(8)]
    late.append([(step, 9.0 if step < 60 else -1.0) for step in STEPS])
    found = replay(late, lambda: asha(10, 2, 100))
    assert found is not None
    assert found.kept < found.replays / 2


def test_a_rule_that_stops_nothing_saves_nothing():
    found = replay(curves(0), lambda: lambda trial, step, value: False)
    assert found is not None
    assert (found.kept, found.saved) == (20, 0.0)


def test_a_few_curves_tell_nothing():
    assert replay(curves(0)[:3], lambda: asha(10, 3, 100)) is None
