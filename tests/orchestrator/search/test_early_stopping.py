"""Early stopping agrees, decision for decision, with plain-Python forms of the rules, on recorded and noisy curves."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
import zlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

import numpy as np
import pytest

from orchestrator.cluster.hyperband import hyperband
from orchestrator.cluster.messages import STEP
from orchestrator.cluster.search import Asha, Median, RunAll
from orchestrator.cluster.seeds import Known, SeedGroups, Stop
from orchestrator.lifecycle import TrialState
from orchestrator.spec.model import EarlyTerminate
from tests.support.learned import a_row

METRIC = "val_loss"
TABLE = json.loads((Path(__file__).parents[2] / "data" / "curves.json").read_text())
"""Validation bits a byte of 36 small models after each of 27 epochs; `tests.support.record_curves` made it."""
Curves = Mapping[str, Sequence[float]]


def noisy(seed: int, count: int = 24) -> Curves:
    """Ten values a trial, one every ten steps."""
    rng = random.Random(seed)
    levels = {str(number): rng.uniform(1, 3) for number in range(count)}
    steps = range(10, 101, 10)
    return {name: [level + 2 / step**0.5 + rng.gauss(0, 0.1) for step in steps] for name, level in levels.items()}


def length(curves: Curves) -> int:
    """Steps of a trial; a value of its curve comes every ten."""
    return 10 * len(next(iter(curves.values())))


def arrivals(seed: int, curves: Curves) -> Generator[tuple[str, int], bool]:
    """(trial, step) in an order in which four workers could report them, none of them idle; send True for a stop."""
    rng = random.Random(f"order {seed}")
    waiting, running = list(curves), dict[str, int]()
    rng.shuffle(waiting)
    while waiting or running:
        while waiting and len(running) < 4:
            running[waiting.pop(0)] = 0
        name = rng.choice(sorted(running))
        running[name] += 10
        stopped = yield name, running[name]
        if stopped or running[name] == length(curves):
            del running[name]


def reached(rule, seed: int, curves: Curves) -> dict[str, int]:
    """The step to which each trial came."""
    reports, last = arrivals(seed, curves), dict[str, int]()
    with suppress(StopIteration):
        name, step = next(reports)
        while True:
            last[name] = step
            name, step = reports.send(rule(name, step, curves[name][step // 10 - 1]))
    return last


def tunes(scheduler):
    def rule(name: str, step: int, value: float) -> bool:
        return scheduler.on_trial_result(None, Known(name), {STEP: step, METRIC: value}) == "STOP"

    return rule


def asha(longest: int = 100) -> Asha:
    return Asha(time_attr=STEP, metric=METRIC, mode="min", grace_period=10, reduction_factor=3, max_t=longest)


def told_asha(curves: Curves):
    scheduler = asha(length(curves))
    for name in curves:
        scheduler.on_trial_add(None, Known(name))
    return tunes(scheduler)


def plain_asha(curves: Curves):
    """At each rung 10, 30, 90 (the highest first that was reached and not recorded), keep the best third."""
    rungs: dict[int, dict[str, float]] = {90: {}, 30: {}, 10: {}}

    def rule(name: str, step: int, value: float) -> bool:
        over = step >= length(curves)
        for milestone, recorded in rungs.items():
            if step >= milestone and name not in recorded:
                before = list(recorded.values())
                recorded[name] = value
                return over or (bool(before) and -value < np.percentile([-each for each in before], (1 - 1 / 3) * 100))
        return over

    return rule


def told_median(curves: Curves):
    return tunes(Median(time_attr=STEP, metric=METRIC, mode="min", grace_period=30))


def plain_median(curves: Curves):
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


def told_hyperband(curves: Curves):
    scheduler = hyperband(BRACKETED, name="curves", metric=METRIC, goal="minimize", max_steps=length(curves))
    for name in curves:
        scheduler.on_trial_add(None, Known(name))
    return tunes(scheduler)


def plain_hyperband(curves: Curves):
    """Brackets with first rungs at 10, 30, 90, 270; in each, a trial passes a rung if it is in the best third there.

    Brackets get trials in proportion to what Hyperband gives them, by a checksum of the trial's number.
    """
    brackets = sum(10 * 3**s <= length(curves) for s in range(9))
    share = [math.ceil(brackets * 3**s / (s + 1)) for s in reversed(range(brackets))]
    numbers = {name: number for number, name in enumerate(curves)}
    rungs: dict[tuple[int, int], list[float]] = {}
    passed: dict[str, int] = {}

    def rule(name: str, step: int, value: float) -> bool:
        ticket = zlib.crc32(f"curves_{numbers[name]}".encode()) % sum(share)
        bracket = next(b for b in range(brackets) if ticket < sum(share[: b + 1]))
        while step >= 10 * 3 ** (bracket + passed.setdefault(name, 0)):
            there = rungs.setdefault((bracket, passed[name]), [])
            there.append(value)
            passed[name] += 1
            if value > sorted(there)[max(len(there) // 3, 1) - 1]:
                return True
        return False

    return rule


RULES = {
    "asha": (told_asha, plain_asha),
    "median": (told_median, plain_median),
    "hyperband": (told_hyperband, plain_hyperband),
}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("told", "plain"), RULES.values(), ids=RULES)
def test_decisions_agree_with_the_plain_form(told, plain, seed):
    for curves in (TABLE, noisy(seed)):
        assert reached(told(curves), seed, curves) == reached(plain(curves), seed, curves)


@pytest.mark.parametrize(("told", "plain"), RULES.values(), ids=RULES)
def test_every_rule_stops_many_but_not_all(told, plain):
    for curves in (TABLE, noisy(0)):
        early = [step for step in reached(told(curves), 0, curves).values() if step < length(curves)]
        assert 4 <= len(early) < len(curves)


def test_asha_comes_to_the_best_of_recorded_curves_in_a_third_of_the_epochs():
    full, best = len(TABLE) * 27, min(TABLE, key=lambda name: TABLE[name][-1])
    shares, found = [], []
    for seed in range(20):
        steps = reached(told_asha(TABLE), seed, TABLE)
        shares.append(sum(steps.values()) / 10 / full)
        found.append(min((name for name in TABLE if steps[name] == 270), key=lambda name: TABLE[name][-1]))
    print(
        f"ASHA over {len(TABLE)} recorded curves of 27 epochs, 20 orders: {median(shares):.1%} of the epochs of all in "
        f"full ({min(shares):.1%} to {max(shares):.1%}); the best in full is found in {found.count(best)} of 20"
    )
    assert found == [best] * 20
    assert median(shares) <= 1 / 3


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_was_told_again_decides_as_the_one_that_was_there(rule):
    curves = noisy(3)
    rows = {name: a_row(int(name)) for name in curves}

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
    told: dict[str, list[tuple[int, float]]] = {name: [] for name in curves}
    second, stopped, compared = None, set(), 0
    for place, (name, step) in enumerate(arrivals(3, curves)):
        if place == 60:
            second = groups()
            second.replay([(rows[name], points) for name, points in told.items()])
        if name in stopped:
            continue
        value = curves[name][step // 10 - 1]
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


@pytest.mark.parametrize("again", [False, True], ids=["a driver's first", "another driver's"])
def test_what_all_seeds_have_reported_is_not_kept(again):
    pair = [a_row(n, config_hash="pair") for n in range(2)]
    curve = [(step, 1.0) for step in range(10_000)]
    groups = SeedGroups(RunAll(), METRIC)
    tracemalloc.start()
    if again:
        groups.replay([(row, curve) for row in pair])
    else:
        for row in pair:
            groups.add(row)
        for step, value in curve:
            for row in pair:
                groups.report(row, step, value)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 500_000, "two values a step would be megabytes"


def test_a_seed_that_failed_is_not_waited_for():
    good, left, failed = (a_row(n, config_hash=name) for n, name in enumerate(("good", "pair", "pair")))
    groups = SeedGroups(asha(), METRIC)
    for row in (good, left, failed):
        groups.add(row)
    groups.report(good, 10, 2.0)
    groups.moved(replace(failed, state=TrialState.FAILED))
    assert groups.report(left, 10, 3.0) is not None
