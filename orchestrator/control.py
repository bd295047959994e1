"""Use case: change what is wanted of a sweep. The coordinator does the rest on its next tick."""

from __future__ import annotations

from orchestrator.errors import BadInput
from orchestrator.lifecycle import SWEEP_ENDS, SweepState, TrialState, Wish
from orchestrator.ports import Clock, SweepStore
from orchestrator.records import Sweep


def cancel(reference: str, *, user: str, store: SweepStore, clock: Clock) -> Sweep:
    """Ask for a sweep's end. Finished trials keep their results; asking again, or too late, changes nothing.

    Raises:
        NotFound: no sweep goes by that name or number.
    """
    sweep = store.find_sweep(reference)
    if sweep.state in SWEEP_ENDS or sweep.wish is Wish.CANCEL:
        return sweep
    return store.wish(sweep.id, Wish.CANCEL, user=user, reason=f"cancelled by {user}", now=clock.now())


def pause(reference: str, *, user: str, store: SweepStore, clock: Clock) -> Sweep:
    """Ask for a sweep to stop at its trials' last checkpoints and to wait. Asking again, or too late, changes nothing.

    Raises:
        NotFound: no sweep goes by that name or number.
    """
    sweep = store.find_sweep(reference)
    if sweep.state in SWEEP_ENDS or sweep.wish is not Wish.RUN:
        return sweep
    return store.wish(sweep.id, Wish.PAUSE, user=user, reason=f"paused by {user}", now=clock.now())


def resume(reference: str, *, user: str, store: SweepStore, clock: Clock) -> Sweep:
    """Ask for a paused sweep to go on from its checkpoints. One that is not paused stays as it is.

    Raises:
        NotFound: no sweep goes by that name or number.
    """
    sweep = store.find_sweep(reference)
    if sweep.state in SWEEP_ENDS or sweep.wish is not Wish.PAUSE:
        return sweep
    return store.wish(sweep.id, Wish.RUN, user=user, reason=f"resumed by {user}", now=clock.now())


def set_priority(reference: str, priority: int, *, user: str, store: SweepStore, clock: Clock) -> Sweep:
    """Change a sweep's priority, 0 to 100. An ended sweep stays as it is.

    Raises:
        NotFound: no sweep goes by that name or number.
    """
    return store.adjust(store.find_sweep(reference).id, user=user, now=clock.now(), priority=priority)


def scale(reference: str, slots: int, *, user: str, store: SweepStore, clock: Clock) -> Sweep:
    """Change how many trials a sweep may run at once, 1 or more. An ended sweep stays as it is.

    Raises:
        NotFound: no sweep goes by that name or number.
    """
    return store.adjust(store.find_sweep(reference).id, user=user, now=clock.now(), max_concurrent=slots)


def retry(reference: str, *, user: str, store: SweepStore, clock: Clock) -> Sweep:
    """Run a sweep's failed and cancelled trials again, from their checkpoints. Nothing to retry changes nothing.

    Raises:
        NotFound: no sweep goes by that name or number.
        BadInput: it runs; its driver knows the trials that were open when it started.
        StaleRow: it was moved meanwhile; ask again.
    """
    sweep = store.find_sweep(reference)
    trials = store.trial_counts([sweep.id])[sweep.id]
    if not trials.get(TrialState.FAILED) and not trials.get(TrialState.CANCELLED):
        return sweep
    if sweep.state in (SweepState.STARTING, SweepState.RUNNING):
        raise BadInput(
            f"sweep {sweep.id} ({sweep.name}) is {sweep.state}: retry its failed trials when it has ended, "
            f"or after `orch pause {sweep.id}`."
        )
    return store.retry(sweep, user=user, now=clock.now())
