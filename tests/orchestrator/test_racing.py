"""Seed racing on configurations whose means are known: what is told apart, how often wrongly, and at what cost."""

import random
from statistics import fmean

import pytest

from orchestrator.racing import Standing, standing

ALPHA, RUNGS, START = 0.05, 10, 3


def race(means: list[float], rng: random.Random, noise: float = 1.0, block: float = 2.0) -> tuple[Standing, int]:
    """A whole race: every configuration with three seeds, then one more at a time for those in the lead.

    block: what a seed does to all configurations alike, which pairing takes out.
    """
    names = [f"c{i}" for i in range(len(means))]
    seed_effects = [rng.gauss(0, block) for _ in range(RUNGS)]
    table = [[mean + effect + rng.gauss(0, noise) for effect in seed_effects] for mean in means]
    results = {name: dict(enumerate(row[:START])) for name, row in zip(names, table, strict=True)}
    now = standing(results, rungs=RUNGS, alpha=ALPHA)
    for place in range(START, RUNGS):
        if len(now.leaders) == 1:
            break
        for name in now.leaders:
            results[name][place] = table[names.index(name)][place]
        now = standing(results, rungs=RUNGS, alpha=ALPHA)
    return now, sum(map(len, results.values()))


def is_false(now: Standing, means: list[float]) -> bool:
    """Smaller is better: something was told worse than what is no better."""
    return any(means[int(worse[1:])] <= means[int(each.by[1:])] for worse, each in now.beaten.items())


@pytest.mark.parametrize("means", [[0.0] * 6, [0.0, 0.0, 0.0, 3.0, 3.0, 6.0], [0.0, 0.0]])
def test_the_chance_of_any_false_separation_stays_under_alpha(means):
    rng = random.Random(f"false/{means}")
    races = 300
    wrong = sum(is_false(race(means, rng)[0], means) for _ in range(races)) / races
    print(f"means {means}: false separations in {wrong:.1%} of {races} races; alpha is {ALPHA:.0%}")
    assert wrong <= ALPHA


def test_a_race_finds_the_best_with_fewer_trials_than_fixed_seeds():
    means = [0.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    rng = random.Random("cost")
    found = [race(means, rng) for _ in range(200)]
    spent, fixed = fmean(trials for _, trials in found), len(means) * RUNGS
    share = fmean(now.leaders == ("c0",) for now, _ in found)
    print(f"a race takes {spent:.1f} trials, fixed seeds take {fixed}; it names the best alone in {share:.0%}")
    assert spent < 0.75 * fixed
    assert share > 0.95
    assert all("c0" in now.leaders for now, _ in found)


def test_what_cannot_be_told_apart_is_a_tie():
    results = {"a": {0: 1.0, 1: 2.0, 2: 3.0}, "b": {0: 1.1, 1: 1.9, 2: 3.05}, "c": {0: 9.0, 1: 10.01, 2: 11.02}}
    now = standing(results, rungs=3, alpha=0.05)
    assert now.leaders == ("a", "b")
    assert set(now.beaten) == {"c"}
    assert now.beaten["c"].p <= 0.05


def test_larger_may_be_better():
    results = {"a": {0: 1.0, 1: 2.0, 2: 3.0}, "b": {0: 9.0, 1: 10.01, 2: 11.02}}
    assert standing(results, rungs=3, alpha=0.05, maximize=True).leaders == ("b",)
    assert standing(results, rungs=3, alpha=0.05).leaders == ("a",)


def test_pairs_are_compared_over_the_seeds_that_both_have():
    full = {place: float(place) for place in range(6)}
    holey = {place: place + 5.0 + place / 100 for place in (0, 2, 3, 5)}
    now = standing({"full": full, "holey": holey, "failed": {}}, rungs=6, alpha=0.05)
    assert (now.leaders, now.out) == (("full",), ("failed",))
    assert now.beaten["holey"].by == "full"


def test_seeds_that_change_nothing_are_no_evidence_where_nothing_differs():
    same = dict.fromkeys(range(4), 1.0)
    assert standing({"a": same, "b": dict(same)}, rungs=4, alpha=0.05).leaders == ("a", "b")
    worse = dict.fromkeys(range(4), 2.0)
    assert standing({"a": same, "b": worse}, rungs=4, alpha=0.05).leaders == ("a",)


def test_two_seeds_hardly_tell_anything_and_a_single_configuration_leads_alone():
    assert standing({"a": {0: 1.0, 1: 1.1}, "b": {0: 1.3, 1: 1.2}}, rungs=5, alpha=0.05).leaders == ("a", "b")
    assert standing({"a": {0: 1.0}}, rungs=5, alpha=0.05).leaders == ("a",)
    assert standing({}, rungs=5, alpha=0.05).leaders == ()
