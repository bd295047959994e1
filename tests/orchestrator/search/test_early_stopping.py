"""Early stopping agrees, decision for decision, with plain-Python forms of the same rules on noisy curves."""

from __future__ import annotations

import math
import random
import zlib
from dataclasses import replace
from statistics import fmean, median

import numpy as np
import pytest

from orchestrator.cluster.hyperband import hyperband
from orchestrator.cluster.messages import STEP
from orchestrator.cluster.search import Asha, Median
from orchestrator.cluster.seeds import Known, SeedGroups, Stop
from orchestrator.lifecycle import TrialState
from orchestrator.spec.model import EarlyTerminate
from tests.support.learned import a_row

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


BRACKETED = EarlyTerminate(type="hyperband", grace_steps=10, reduction_factor=3)


def told_hyperband():
    scheduler = hyperband(BRACKETED, name="curves", metric=METRIC, goal="minimize", max_steps=100)
    for name in curves(0):
        scheduler.on_trial_add(None, Known(name))
    return tunes(scheduler)


def plain_hyperband():
    """Brackets 0, 1, 2 with first rungs at 10, 30, 90; in each, a trial passes a rung if it is in the best third there.

    Brackets get trials in proportion to what Hyperband gives them (9, 5 and 3), by a checksum of the trial's number.
    """
    share = [math.ceil(3 * 3**s / (s + 1)) for s in (2, 1, 0)]
    rungs: dict[tuple[int, int], list[float]] = {}
    reached: dict[str, int] = {}

    def rule(name: str, step: int, value: float) -> bool:
        ticket = zlib.crc32(f"curves_{name}".encode()) % sum(share)
        bracket = next(b for b in range(3) if ticket < sum(share[: b + 1]))
        while step >= 10 * 3 ** (bracket + reached.setdefault(name, 0)):
            there = rungs.setdefault((bracket, reached[name]), [])
            there.append(value)
            reached[name] += 1
            if value > sorted(there)[max(len(there) // 3, 1) - 1]:
                return True
        return False

    return rule


RULES = {
    "asha": (told_asha, plain_asha),
    "median": (told_median, plain_median),
    "hyperband": (told_hyperband, plain_hyperband),
}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("told", "plain"), RULES.values(), ids=RULES)
def test_decisions_agree_with_the_plain_form(told, plain, seed):
    assert decisions(told(), seed) == decisions(plain(), seed)


def test_every_rule_stops_many_but_not_all():
    for told, _ in RULES.values():
        early = [step for step in decisions(told(), 0).values() if step < 100]
        assert 4 <= len(early) < 24


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_was_told_again_decides_as_the_one_that_was_there(rule):
    values = curves(3)
    rows = {name: a_row(int(name)) for name in values}

    def groups() -> SeedGroups:
        made = {
            "asha": asha,
            "median": lambda: Median(time_attr=STEP, metric=METRIC, mode="min", grace_period=30),
            "hyperband": lambda: hyperband(BRACKETED, name="g", metric=METRIC, goal="minimize", max_steps=100),
        }
        return SeedGroups(made[rule](), METRIC)

    first = groups()
    for row in rows.values():
        first.add(row)
    told: dict[str, list[tuple[int, float]]] = {name: [] for name in values}
    second, stopped, compared = None, set(), 0
    for place, (name, step) in enumerate(arrivals(3, list(values))):
        if place == 60:
            second = groups()
            second.replay([(rows[name], points) for name, points in told.items()])
        if name in stopped:
            continue
        value = values[name][STEPS.index(step)]
        told[name].append((step, value))
        decided = first.report(rows[name], step, value)
        if second is not None:
            assert (second.report(rows[name], step, value) is None) == (decided is None)
            compared += 1
        if decided:
            stopped.add(name)
    assert compared > 10


def test_a_configuration_is_stopped_for_the_mean_of_its_seeds_and_with_all_of_them():
    good, lucky, bad = (a_row(n, config_hash=name) for n, name in enumerate(("good", "pair", "pair")))
    groups = SeedGroups(asha(), METRIC)
    for row in (good, lucky, bad):
        groups.add(row)
    assert groups.report(good, 10, 2.0) is None
    assert groups.report(lucky, 10, 1.0) is None, "better than all by itself, but the other seed is not there yet"
    told = groups.report(bad, 10, 5.0)
    assert isinstance(told, Stop)
    assert "val_loss 3 is not in the best 1/3" in told.reason
    assert groups.report(lucky, 20, 0.5) == told


def test_a_seed_that_failed_is_not_waited_for():
    good, left, failed = (a_row(n, config_hash=name) for n, name in enumerate(("good", "pair", "pair")))
    groups = SeedGroups(asha(), METRIC)
    for row in (good, left, failed):
        groups.add(row)
    groups.report(good, 10, 2.0)
    groups.moved(replace(failed, state=TrialState.FAILED))
    assert groups.report(left, 10, 3.0) is not None
