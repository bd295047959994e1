"""Seed racing: which configurations a paired test tells apart, as seeds come in. Pure.

Seeds are rungs. At each rung every pair of configurations that are still in the race is compared by a paired t-test
over the seeds that both have; what a pair showed at several rungs becomes one p-value by Bonferroni's inequality (each
rung spends an equal part of alpha), and Holm's procedure (1979) makes one decision of all pairs. Both hold whatever the
pairs have in common, so the chance of telling any two equal configurations apart, at any rung, stays under alpha.
Every decision follows from the results alone: a new driver decides as the old one would have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from orchestrator.lifecycle import TRIAL_ENDS, TrialState
from orchestrator.records import Trial
from orchestrator.spec.operations import RACE_STARTS, Seeds

Floats: TypeAlias = NDArray[Any]
Results: TypeAlias = Mapping[str, Mapping[int, float]]
"""By configuration, its result by the place of the seed, from 0."""


@dataclass(frozen=True, slots=True)
class Beaten:
    """by: a configuration that was shown to be better. p: adjusted for all pairs and rungs; at most alpha."""

    by: str
    p: float


@dataclass(frozen=True, slots=True)
class Standing:
    """leaders: configurations that nothing was shown to be better than, best mean first; several are a tie.

    out: configurations without a single result.
    """

    leaders: tuple[str, ...]
    beaten: Mapping[str, Beaten]
    out: tuple[str, ...] = ()


def standing(results: Results, *, rungs: int, alpha: float, maximize: bool = False) -> Standing:
    """Where a race stands.

    Args:
        results: may lack places: a pair is compared over those that both have.
        rungs: seeds in all, by which alpha is divided beforehand.
    """
    names = [name for name, values in results.items() if values]
    means = {name: fmean(results[name].values()) for name in names}
    order = sorted(names, key=lambda name: -means[name] if maximize else means[name])
    pairs = _pairs([results[name] for name in names], rungs)
    beaten: dict[str, Beaten] = {}
    for i, j, p, difference in zip(*pairs, strict=True):
        if p > alpha:
            continue
        first_is_better = (difference > 0) == maximize
        better, worse = (names[i], names[j]) if first_is_better else (names[j], names[i])
        if worse not in beaten or p < beaten[worse].p:
            beaten[worse] = Beaten(better, float(p))
    leaders = tuple(name for name in order if name not in beaten) or tuple(order[:1])
    out = tuple(name for name in results if name not in means)
    return Standing(leaders, {name: each for name, each in beaten.items() if name not in leaders}, out)


def standing_of(seeds: Seeds, trials: Sequence[Trial], *, maximize: bool) -> Standing:
    """Where the race between a sweep's configurations stands; they go by their hash."""
    return standing(results_of(seeds, trials), rungs=len(seeds.numbers), alpha=seeds.alpha, maximize=maximize)


def results_of(seeds: Seeds, trials: Sequence[Trial]) -> dict[str, dict[int, float]]:
    """The scores of trials that ended with a result."""
    place = {seed: index for index, seed in enumerate(seeds.numbers)}
    found: dict[str, dict[int, float]] = {}
    for trial in trials:
        values = found.setdefault(trial.config_hash, {})
        if trial.state in (TrialState.SUCCEEDED, TrialState.STOPPED) and trial.score is not None:
            values[place[trial.seed]] = trial.score
    return found


def next_rung(seeds: Seeds, trials: Sequence[Trial], *, maximize: bool) -> tuple[int, tuple[str, ...]] | None:
    """The place of the seed that the race goes on with, and the configurations that get it.

    No configurations: the rung is not complete yet. None: the race is over, for it is decided or has used its seeds.
    """
    now = standing_of(seeds, trials, maximize=maximize)
    counts = Counter(trial.config_hash for trial in trials if trial.config_hash not in now.beaten)
    rung = min(counts.values(), default=0)
    if any(trial.config_hash in counts and trial.state not in TRIAL_ENDS for trial in trials):
        return rung, ()
    behind = tuple(name for name in now.leaders if counts[name] < len(seeds.numbers))
    if len(now.leaders) < 2 or not behind:
        return None
    rung = min(counts[name] for name in behind)
    return rung, tuple(name for name in behind if counts[name] == rung)


def _pairs(results: Sequence[Mapping[int, float]], rungs: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Of each pair: its two rows, its p-value adjusted for rungs and pairs, and the mean difference behind that."""
    start = min(RACE_STARTS, rungs)
    table = np.full((len(results), rungs), np.nan)
    for row, values in enumerate(results):
        table[row, list(values)] = list(values.values())
    rows, columns = np.triu_indices(len(results), k=1)
    differences = table[rows] - table[columns]
    least, behind = np.ones(len(rows)), np.zeros(len(rows))
    for last in range(start - 1, rungs):
        p, mean = _paired(differences[:, : last + 1])
        # A rung at which one of the two has no result shows nothing new
        better = (p < least) & ~np.isnan(differences[:, last])
        least[better], behind[better] = p[better], mean[better]
    return rows, columns, _holm(np.minimum(least * (rungs - start + 1), 1.0)), behind


def _paired(differences: Floats) -> tuple[Floats, Floats]:
    """Two-sided p-values of paired t-tests from the differences [pairs, n], NaN where one has none, and their means."""
    # SciPy's special functions take 0.1 s to import, and only races need them
    from scipy.special import stdtr

    there = ~np.isnan(differences)
    n = there.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(there, differences, 0.0).sum(axis=1) / n
        squares = np.where(there, (differences - mean[:, None]) ** 2, 0.0).sum(axis=1)
        p = 2 * stdtr(n - 1, -np.abs(mean / np.sqrt(squares / (n - 1) / n)))
    # Fewer than two differences show nothing; nor do differences that are all zero
    return np.where((n < 2) | np.isnan(p), 1.0, p), mean


def _holm(p: Floats) -> Floats:
    """Holm's adjusted p-values."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted
