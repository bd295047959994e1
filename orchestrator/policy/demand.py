"""The words of the policy: what a sweep asks for, what it gets, and the rules of the house."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from orchestrator.records import Capacity

Account: TypeAlias = tuple[str, str]
"""(project, user)."""

SLACK = 1e-9
"""Fractions of GPUs add up inexactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one open sweep asks for.

    trials: how many it could run at once. open_trials: how many it has still to run, with those that run.
    cpus, gpus: of one trial, all its workers together; a trial gets all of it or does not start.
    pool: name of the pool that it takes from; "" for the default one.
    homeless: no node is large enough for one of its workers, or it may run on none.
    started: it has a driver, and with it a place that is not taken away for newcomers of its own priority.
    stopping: its driver is on its way out; it wants nothing, and holds what it has until it is gone.
    slots: allotted now. running: trials that run now; more than `slots` while its share shrinks.
    waited_s: seconds in the queue so far, in all.
    trial_s: expected seconds of one trial; None while nobody knows.
    ends_s: expected seconds until the end of each running trial.
    """

    sweep_id: int
    name: str
    priority: int
    trials: int
    cpus: float
    gpus: float
    started: bool
    pool: str = ""
    homeless: bool = False
    project: str = "default"
    user: str = "anonymous"
    open_trials: int = 0
    stopping: bool = False
    slots: int = 0
    running: int = 0
    waited_s: float = 0.0
    trial_s: float | None = None
    ends_s: Sequence[float] = ()

    @property
    def held(self) -> int:
        """Trials' worth of the pool that is taken by it."""
        return max(self.slots, self.running, 1) if self.started or self.stopping else 0

    def share_of(self, pool: Capacity) -> float:
        """Share of the pool that one trial takes: of the resource of which it takes most.

        Dominant resource fairness: Ghodsi et al., NSDI 2011.
        """
        cpus = self.cpus / pool.cpus if pool.cpus else 0.0
        return max(cpus, self.gpus / pool.gpus) if pool.gpus else cpus

    def level(self, rules: Rules) -> float:
        """Its priority, risen by its time in the queue."""
        return self.priority + self.waited_s / rules.aging_s

    def duration_s(self, slots: int, rules: Rules) -> float:
        """Expected seconds until its last trial's end on so many slots."""
        left = max(self.open_trials, self.trials) - len(self.ends_s)
        return max(self.ends_s, default=0.0) + -(-left // slots) * (self.trial_s or rules.guess_s)


@dataclass(frozen=True, slots=True)
class Allotment:
    """slots: trials that the sweep may run at once; 0 means that it waits, or must stop, for the reason given."""

    slots: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How this orch weighs.

    half_life_s: after so long, past usage counts half.
    aging_s: so long in the queue counts as one point of priority.
    patience_s: after so long in the queue, room is kept for a trial that is due and fits nowhere; small work may use
        it that is expected to end before there is enough of it.
    overdue_s: after so long in the queue, a sweep that is due and fits nowhere stops what overtook it: sweeps that
        waited shorter by as much, and are younger of its own user, or of accounts that hold and held more. One of big
        trials comes first in its priority then, and stops all that waited shorter by as much: room for it would lie
        idle for long while it adds up.
    big: a trial is big that takes over so many times what those of all open sweeps take on average.
    guess_s: length of a trial of which nothing is known.
    weights: of projects ("moe") and users ("moe/ada") when shares are compared; 1 where not named.
    quotas: largest share of the pool, in (0, 1], that a project may hold; 1 where not named.
    """

    half_life_s: float = 24 * 3600.0
    aging_s: float = 3600.0
    patience_s: float = 600.0
    overdue_s: float = 4 * 3600.0
    big: float = 4.0
    guess_s: float = 3600.0
    weights: Mapping[str, float] = field(default_factory=dict)
    quotas: Mapping[str, float] = field(default_factory=dict)


class Room:
    """What is left of the pool while dividing it. May be negative after the pool has shrunk."""

    __slots__ = ("cpus", "gpus")

    def __init__(self, cpus: float, gpus: float) -> None:
        self.cpus, self.gpus = cpus, gpus

    def fits(self, demand: Demand) -> bool:
        """One more trial of it fits."""
        return demand.cpus <= self.cpus + SLACK and demand.gpus <= self.gpus + SLACK

    def take(self, demand: Demand, trials: int = 1) -> None:
        """Room for so many trials goes."""
        self.cpus -= trials * demand.cpus
        self.gpus -= trials * demand.gpus

    def give(self, demand: Demand, trials: int = 1) -> None:
        """Room for so many trials comes back."""
        self.take(demand, -trials)
