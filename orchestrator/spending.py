"""A sweep's `budget`: what is used up of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from orchestrator.lifecycle import TRIAL_ENDS, TrialState
from orchestrator.records import Trial
from orchestrator.spec.operations import Budget, Resources

HOUR_S = 3600.0


def used_up(budget: Budget, resources: Resources, *, held_s: float, passed_s: float) -> str:
    """Which limit has been reached, in one sentence; "" while none has.

    Args:
        held_s: seconds for which trials held their places, added up over trials.
        passed_s: seconds since the sweep's first start.
    """
    for unit, limit, each in (
        ("gpu_hours", budget.gpu_hours, resources.gpu),
        ("cpu_hours", budget.cpu_hours, resources.cpu),
    ):
        used = held_s / HOUR_S * resources.workers * each
        if limit is not None and used >= limit:
            return f"the budget of {limit:g} {unit} is used up"
    if budget.wall_clock_s is not None and passed_s >= budget.wall_clock_s:
        return f"the budget of {budget.wall_clock} wall_clock is used up"
    return ""


def out_of_patience(budget: Budget, trials: Sequence[Trial], *, maximize: bool) -> str:
    """Whether the last `patience` trials brought nothing better, in one sentence; "" where they did.

    A configuration counts once all its trials have ended, with the mean of their scores: a lucky seed is no progress.
    """
    if budget.patience is None:
        return ""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.config_hash, []).append(trial)
    ended = [group for group in groups.values() if all(trial.state in TRIAL_ENDS for trial in group)]
    best, since = None, 0
    for group in sorted(ended, key=_ended):
        scores = [trial.score for trial in group if trial.state in _GOOD and trial.score is not None]
        value = (-1 if maximize else 1) * sum(scores) / len(scores) if scores else None
        if value is not None and (best is None or value < best):
            best, since = value, 0
        else:
            since += len(group)
    if since < budget.patience:
        return ""
    return f"the last {since} trials brought nothing better, and its patience is {budget.patience}"


_GOOD = (TrialState.SUCCEEDED, TrialState.STOPPED)


def _ended(group: Sequence[Trial]) -> tuple[datetime, int]:
    return max((trial.ended_at, trial.number) for trial in group if trial.ended_at is not None)
