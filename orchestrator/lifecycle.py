"""States of sweeps and trials, the moves between them, and who may make them. The only place that knows."""

from __future__ import annotations

from enum import StrEnum

from orchestrator.errors import IllegalMove


class SweepState(StrEnum):
    """Where a sweep is."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TrialState(StrEnum):
    """Where a trial is.

    PAUSED: a person keeps it out of the queue. STOPPED: ended early by the sweep's own rule, with a valid result.
    """

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    STOPPED = "stopped"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Wish(StrEnum):
    """What people want of a sweep; the coordinator works towards it."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class Actor(StrEnum):
    """Who moves a row."""

    COORDINATOR = "coordinator"
    DRIVER = "driver"
    USER = "user"


S, T, A = SweepState, TrialState, Actor

SWEEP_MOVES: dict[tuple[SweepState, SweepState], frozenset[Actor]] = {
    (S.QUEUED, S.STARTING): frozenset({A.COORDINATOR}),
    (S.QUEUED, S.CANCELLED): frozenset({A.COORDINATOR}),
    (S.QUEUED, S.PAUSED): frozenset({A.COORDINATOR}),
    (S.QUEUED, S.FAILED): frozenset({A.COORDINATOR}),  # what it depends on will not succeed
    (S.STARTING, S.RUNNING): frozenset({A.COORDINATOR}),
    (S.STARTING, S.QUEUED): frozenset({A.COORDINATOR}),
    (S.STARTING, S.PAUSED): frozenset({A.COORDINATOR}),
    (S.STARTING, S.SUCCEEDED): frozenset({A.COORDINATOR}),
    (S.STARTING, S.FAILED): frozenset({A.COORDINATOR}),
    (S.STARTING, S.CANCELLED): frozenset({A.COORDINATOR}),
    (S.RUNNING, S.QUEUED): frozenset({A.COORDINATOR}),  # preempted, or its driver was lost
    (S.RUNNING, S.PAUSED): frozenset({A.COORDINATOR}),
    (S.RUNNING, S.SUCCEEDED): frozenset({A.COORDINATOR}),
    (S.RUNNING, S.FAILED): frozenset({A.COORDINATOR}),
    (S.RUNNING, S.CANCELLED): frozenset({A.COORDINATOR}),
    (S.PAUSED, S.QUEUED): frozenset({A.COORDINATOR}),
    (S.PAUSED, S.CANCELLED): frozenset({A.COORDINATOR}),
    (S.SUCCEEDED, S.QUEUED): frozenset({A.USER}),  # a retry of what failed or was cancelled in it
    (S.FAILED, S.QUEUED): frozenset({A.USER}),
    (S.CANCELLED, S.QUEUED): frozenset({A.USER}),
}

TRIAL_MOVES: dict[tuple[TrialState, TrialState], frozenset[Actor]] = {
    (T.PENDING, T.RUNNING): frozenset({A.DRIVER}),
    (T.PENDING, T.STOPPED): frozenset({A.DRIVER}),
    (T.PENDING, T.FAILED): frozenset({A.DRIVER, A.COORDINATOR}),
    (T.PENDING, T.PAUSED): frozenset({A.USER}),
    (T.PENDING, T.CANCELLED): frozenset({A.COORDINATOR, A.USER}),
    (T.RUNNING, T.PENDING): frozenset({A.DRIVER, A.COORDINATOR}),  # preempted, or its worker was lost: attempt + 1
    (T.RUNNING, T.PAUSED): frozenset({A.DRIVER, A.COORDINATOR}),  # as a person wished
    (T.RUNNING, T.SUCCEEDED): frozenset({A.DRIVER}),
    (T.RUNNING, T.STOPPED): frozenset({A.DRIVER}),
    (T.RUNNING, T.FAILED): frozenset({A.DRIVER, A.COORDINATOR}),
    (T.RUNNING, T.CANCELLED): frozenset({A.DRIVER, A.COORDINATOR}),
    (T.PAUSED, T.PENDING): frozenset({A.USER}),
    (T.PAUSED, T.STOPPED): frozenset({A.DRIVER}),
    (T.PAUSED, T.FAILED): frozenset({A.DRIVER, A.COORDINATOR}),
    (T.PAUSED, T.CANCELLED): frozenset({A.COORDINATOR, A.USER}),
    (T.FAILED, T.PENDING): frozenset({A.USER}),  # a retry
    (T.CANCELLED, T.PENDING): frozenset({A.USER}),
}

WISHED = {Wish.RUN: T.PENDING, Wish.PAUSE: T.PAUSED, Wish.CANCEL: T.CANCELLED}
"""What a trial that does not run becomes by a person's wish."""

# An end is left by a person's retry alone.
SWEEP_ENDS = frozenset(SweepState) - {before for (before, _), who in SWEEP_MOVES.items() if who != {A.USER}}
TRIAL_ENDS = frozenset(TrialState) - {before for (before, _), who in TRIAL_MOVES.items() if who != {A.USER}}


def check_sweep_move(before: SweepState, after: SweepState, actor: Actor) -> None:
    """Raises IllegalMove unless `actor` may move a sweep from `before` to `after`."""
    if actor not in SWEEP_MOVES.get((before, after), frozenset()):
        raise IllegalMove(f"the {actor} may not move a sweep from {before} to {after}")


def check_trial_move(before: TrialState, after: TrialState, actor: Actor) -> None:
    """Raises IllegalMove unless `actor` may move a trial from `before` to `after`."""
    if actor not in TRIAL_MOVES.get((before, after), frozenset()):
        raise IllegalMove(f"the {actor} may not move a trial from {before} to {after}")
