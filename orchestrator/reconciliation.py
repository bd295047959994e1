"""Use case: what a coordinator finds when it begins to act, told line by line. The ticks that follow carry it out."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.coordinator import STARTED, Act, Move, decide
from orchestrator.errors import ClusterError
from orchestrator.lifecycle import SWEEP_ENDS, TRIAL_ENDS, SweepState, TrialState, Wish
from orchestrator.policy import Allotment
from orchestrator.ports import Launcher, Outbox, SweepStore
from orchestrator.records import DriverStatus, Sweep


def reconcile(sweeps: SweepStore, outbox: Outbox, launcher: Launcher) -> list[str]:
    """One line for each sweep that had a driver, and one each for the queue and the tracker.

    Raises Unreachable; nothing is changed here, so asking again is safe.
    """
    found = sweeps.open_sweeps()
    started = [sweep for sweep in found if sweep.state in STARTED]
    trials = sweeps.trial_counts([sweep.id for sweep in started])
    lines = [
        _line(sweep, launcher, trials.get(sweep.id, {}), bool(sweep.losses) and sweeps.progressed(sweep.id))
        for sweep in started
    ]
    for state, words in ((SweepState.QUEUED, "in the queue"), (SweepState.PAUSED, "paused")):
        if number := sum(sweep.state is state for sweep in found):
            lines.append(f"{number} sweep{'s' * (number > 1)} {words}, as before")
    if waiting := outbox.size():
        lines.append(f"MLflow: {waiting} facts are still to be told")
    return lines or ["nothing was going on"]


def _line(sweep: Sweep, launcher: Launcher, trials: Mapping[TrialState, int], progressed: bool) -> str:
    try:
        driver = launcher.status(sweep)
        last_words = launcher.failure(sweep) if driver is DriverStatus.DIED else ""
    except ClusterError as error:
        return f"sweep {sweep.id} ({sweep.name}): {error}; asked again"
    job = launcher.job_id(sweep.id, sweep.attempt)
    left = sum(count for state, count in trials.items() if state not in TRIAL_ENDS)
    match decide(sweep, driver, trials, Allotment(sweep.slots, ""), last_words, progressed):
        case Act.START:
            told = f"resumed: its driver {job} had not been started yet"
        case Act.STOP:
            why = sweep.reason if sweep.wish is Wish.RUN else f"as asked: {sweep.wish}"
            told = f"adopted: its driver {job} runs and is stopped, {why}"
        case Move(to, reason) if to in SWEEP_ENDS:
            told = f"closed: it ended unseen; {reason}"
        case Move(SweepState.PAUSED, reason):
            told = f"closed for now: {reason}"
        case Move(SweepState.QUEUED, reason):
            told = f"resumed: {reason or 'its driver stopped'}; {left} trials go on from their last checkpoints"
        case _:
            told = f"adopted: its driver {job} runs, with {left} trials to go"
    return f"sweep {sweep.id} ({sweep.name}): {told}"
