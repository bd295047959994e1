"""What early stopping would have done to curves that are there in full. Pure.

Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934), Hyperband (Li et al. 2018, arXiv:1603.06560) and the
median rule (Golovin et al. 2017), decision for decision as Ray Tune's and Optuna's classes take them; trials report in
turn, as if `SLOTS` of them ran at once.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

Curve = Sequence[tuple[int, float]]
"""(step, value) in order of step, smaller values better."""
Rule = Callable[[int, int, float], bool]
"""(trial, step, value) -> whether it stops here."""

SLOTS = 4
LEAST_CURVES = 4
MEDIAN_OF = 3
"""Other trials that the median rule waits for, where the file does not say."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """How `replays` orders of arrival went. kept: those in which the best curve ran to its end.

    saved: share of all steps that would not have been run, a mean over the replays.
    """

    replays: int
    kept: int
    saved: float
    curves: int


def replay(curves: Sequence[Curve], rule: Callable[[], Rule], *, replays: int = 20, seed: int = 0) -> Replayed | None:
    """Run `rule` over the curves in several orders of arrival; None where there are too few curves to tell."""
    if len(curves) < LEAST_CURVES:
        return None
    best = min(range(len(curves)), key=lambda trial: curves[trial][-1][1])
    whole = sum(curve[-1][0] for curve in curves)
    kept, shares = 0, []
    for number in range(replays):
        reached = _run(curves, rule(), random.Random(f"{seed}/{number}"))
        kept += reached[best] == curves[best][-1][0]
        shares.append(1 - sum(reached) / whole)
    return Replayed(replays, kept, fmean(shares), len(curves))


def asha(grace_steps: int, reduction_factor: float, max_steps: int) -> Rule:
    """Rungs at grace_steps · reduction_factor^i below max_steps; of those at a rung the best share goes on."""
    rungs: list[tuple[float, dict[int, float]]] = []
    milestone = float(grace_steps)
    while milestone < max_steps:
        rungs.insert(0, (milestone, {}))
        milestone *= reduction_factor

    def stops(trial: int, step: int, value: float) -> bool:
        for rung, recorded in rungs:
            if step >= rung and trial not in recorded:
                worst = _quantile([-each for each in recorded.values()], 1 - 1 / reduction_factor)
                recorded[trial] = value
                return worst is not None and -value < worst
        return False

    return stops


def hyperband(grace_steps: int, reduction_factor: int, max_steps: int, name: str) -> Rule:
    """Successive halving in brackets: the rungs of bracket b begin at grace_steps · reduction_factor^b.

    Brackets get trials in proportion to what Hyperband gives them, by a checksum of the sweep's name and the trial's
    place; a trial goes on from a rung if it is among the best share of those that have come to it, itself included.
    """
    # In floating point, as Optuna counts them
    longest = max(0, math.floor(math.log(max_steps / grace_steps, reduction_factor)))
    trials_in = [math.ceil((longest + 1) * reduction_factor**s / (s + 1)) for s in range(longest, -1, -1)]
    rungs: dict[tuple[int, int], list[float]] = {}
    passed: dict[int, int] = {}

    def stops(trial: int, step: int, value: float) -> bool:
        ticket = zlib.crc32(f"{name}_{trial}".encode()) % sum(trials_in)
        bracket = next(b for b in range(longest + 1) if ticket < sum(trials_in[: b + 1]))
        while step >= grace_steps * reduction_factor ** (bracket + passed.setdefault(trial, 0)):
            there = rungs.setdefault((bracket, passed[trial]), [])
            there.append(value)
            passed[trial] += 1
            if value > sorted(there)[max(len(there) // reduction_factor, 1) - 1]:
                return True
        return False

    return stops


def median_rule(grace_steps: int, least: int = MEDIAN_OF) -> Rule:
    """Stops where the best value so far is worse than the median of the running means of `least` others or more."""
    seen: dict[int, list[tuple[int, float]]] = {}

    def stops(trial: int, step: int, value: float) -> bool:
        seen.setdefault(trial, []).append((step, value))
        if step < grace_steps:
            return False
        others = [points for other, points in seen.items() if other != trial and points[-1][0] >= step]
        if len(others) < least:
            return False
        means = [fmean(v for at, v in points if grace_steps <= at <= step) for points in others]
        return min(v for _, v in seen[trial]) > median(means)

    return stops


def _run(curves: Sequence[Curve], rule: Rule, order: random.Random) -> list[int]:
    """The step that each trial comes to."""
    waiting = list(range(len(curves)))
    order.shuffle(waiting)
    running: dict[int, int] = {}
    reached = [0] * len(curves)
    while waiting or running:
        while waiting and len(running) < SLOTS:
            running[waiting.pop()] = 0
        trial = order.choice(sorted(running))
        step, value = curves[trial][running[trial]]
        running[trial] += 1
        reached[trial] = step
        if rule(trial, step, value) or running[trial] == len(curves[trial]):
            del running[trial]
    return reached


def _quantile(values: Sequence[float], share: float) -> float | None:
    """Linear between neighbours, as numpy's percentile."""
    if not values:
        return None
    ranked = sorted(values)
    place = share * (len(ranked) - 1)
    low = int(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (ranked[high] - ranked[low]) * (place - low)
