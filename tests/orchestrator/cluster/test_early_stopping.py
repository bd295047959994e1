"""Early stopping agrees, decision for decision, with plain-Python forms of the same rules on noisy curves."""

from __future__ import annotations

import random
from statistics import fmean, median

import numpy as np
import pytest

from orchestrator.cluster.search import STEP, Asha, Known, Median, replay

STEPS = range(10, 101, 10)
METRIC = "val_loss"


def curves(seed: int, count: int = 24) -> dict[str, list[float]]:
    rng = random.Random(seed)
    levels = {str(number): rng.uniform(1, 3) for number in range(count)}
    return {name: [level + 2 / step**0.5 + rng.gauss(0, 0.1) for step in STEPS] for name, level in levels.items()}


def arrivals(seed: int, names: list[str]) -> list[tuple[str, int]]:
    """(trial, step) in an order in which four workers could report them."""
    rng = random.Random(f"order {seed}")
    waiting, running, order = list(names), {}, []
    while waiting or running:
        while waiting and len(running) < 4:
            running[waiting.pop(0)] = 0
        name = rng.choice(sorted(running))
        order.append((name, STEPS[running[name]]))
        running[name] += 1
        if running[name] == len(STEPS):
            del running[name]
    return order


def decisions(rule, seed: int) -> dict[str, int]:
    """The step at which each stopped trial was stopped."""
    values, stopped = curves(seed), {}
    for name, step in arrivals(seed, list(values)):
        if name not in stopped and rule(name, step, values[name][STEPS.index(step)]):
            stopped[name] = step
    return stopped


def tunes(scheduler):
    def rule(name: str, step: int, value: float) -> bool:
        return scheduler.on_trial_result(None, Known(name), {STEP: step, METRIC: value}) == "STOP"

    return rule


def asha() -> Asha:
    return Asha(time_attr=STEP, metric=METRIC, mode="min", grace_period=10, reduction_factor=3, max_t=100)


def told_asha():
    scheduler = asha()
    for name in curves(0):
        scheduler.on_trial_add(None, Known(name))
    return tunes(scheduler)


def plain_asha():
    """At each rung 10, 30, 90 (the highest first that was reached and not recorded), keep the best third."""
    rungs: dict[int, dict[str, float]] = {90: {}, 30: {}, 10: {}}

    def rule(name: str, step: int, value: float) -> bool:
        for milestone, recorded in rungs.items():
            if step >= milestone and name not in recorded:
                before = list(recorded.values())
                recorded[name] = value
                stop = bool(before) and -value < np.percentile([-each for each in before], (1 - 1 / 3) * 100)
                return stop or step >= 100
        return step >= 100

    return rule


def told_median():
    return tunes(Median(time_attr=STEP, metric=METRIC, mode="min", grace_period=30))


def plain_median():
    seen: dict[str, list[tuple[int, float]]] = {}

    def rule(name: str, step: int, value: float) -> bool:
        seen.setdefault(name, []).append((step, value))
        if step < 30:
            return False
        others = [points for other, points in seen.items() if other != name and points[-1][0] >= step]
        means = [fmean(v for at, v in points if 30 <= at <= step) for points in others]
        return len(means) >= 3 and min(v for _, v in seen[name]) > median(means)

    return rule


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("told", "plain"), [(told_asha, plain_asha), (told_median, plain_median)], ids=["asha", "median"]
)
def test_decisions_agree_with_the_plain_form(told, plain, seed):
    assert decisions(told(), seed) == decisions(plain(), seed)


def test_both_rules_stop_many_but_not_all():
    for rule in (told_asha, told_median):
        early = [step for step in decisions(rule(), 0).values() if step < 100]
        assert 4 <= len(early) < 24


def test_a_scheduler_that_was_told_again_decides_as_the_one_that_was_there():
    values = curves(3)
    order = arrivals(3, list(values))
    first = asha()
    for name in values:
        first.on_trial_add(None, Known(name))
    rule = tunes(first)
    told: dict[str, list[tuple[int, float]]] = {name: [] for name in values}
    for name, step in order[:60]:
        told[name].append((step, values[name][STEPS.index(step)]))
        rule(*(name, *told[name][-1]))
    second = asha()
    replay(second, METRIC, [(int(name), points) for name, points in told.items()])
    again = tunes(second)
    for name, step in order[60:]:
        value = values[name][STEPS.index(step)]
        assert rule(name, step, value) == again(name, step, value)
