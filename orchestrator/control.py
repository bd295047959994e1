"""Use case: change what is wanted of a sweep, a trial or a node. Coordinator and drivers do the rest."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import NotFound
from orchestrator.lifecycle import SWEEP_ENDS, TrialState, Wish
from orchestrator.ports import Clock, SweepStore, TrialStore
from orchestrator.records import Place, Sweep, Trial


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


def resume(reference: str, *, user: str, store: SweepStore, trials: TrialStore, clock: Clock) -> Sweep:
    """Ask for a paused sweep to go on from its checkpoints, or for those of its trials that were paused one by one.

    What is not paused stays as it is.

    Raises:
        NotFound: no sweep goes by that name or number.
    """
    sweep = store.find_sweep(reference)
    if sweep.state in SWEEP_ENDS or sweep.wish is Wish.CANCEL:
        return sweep
    if sweep.wish is Wish.RUN:
        for trial in trials.trials(sweep.id):
            if trial.state is TrialState.PAUSED:
                resume_trial(trial.id, user=user, trials=trials, clock=clock)
        return store.sweep(sweep.id)
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
        StaleRow: it was moved meanwhile; ask again.
    """
    sweep = store.find_sweep(reference)
    trials = store.trial_counts([sweep.id])[sweep.id]
    if not trials.get(TrialState.FAILED) and not trials.get(TrialState.CANCELLED):
        return sweep
    return store.retry(sweep, user=user, now=clock.now())


def cancel_trial(trial_id: int, *, user: str, trials: TrialStore, clock: Clock) -> Trial:
    """Ask for one trial's end; the rest of its sweep goes on. Asking again, or too late, changes nothing.

    Raises:
        NotFound: no such trial.
    """
    return trials.wish(trial_id, Wish.CANCEL, user=user, reason=f"cancelled by {user}", now=clock.now())


def pause_trial(trial_id: int, *, user: str, trials: TrialStore, clock: Clock) -> Trial:
    """Ask for one trial to stop at its next report, with its checkpoint, and to stay out of the queue.

    Raises:
        NotFound: no such trial.
    """
    return trials.wish(trial_id, Wish.PAUSE, user=user, reason=f"paused by {user}", now=clock.now())


def resume_trial(trial_id: int, *, user: str, trials: TrialStore, clock: Clock) -> Trial:
    """Let a paused trial wait for a slot again. One that is not paused stays as it is.

    Raises:
        NotFound: no such trial.
    """
    return trials.wish(trial_id, Wish.RUN, user=user, reason=f"resumed by {user}", now=clock.now())


def retry_trial(trial_id: int, *, user: str, sweeps: SweepStore, trials: TrialStore, clock: Clock) -> Trial:
    """Run one failed or cancelled trial again, from its checkpoint. Any other stays as it is.

    Raises:
        NotFound: no such trial.
        StaleRow: its sweep was moved meanwhile; ask again.
    """
    trial = trials.trial(trial_id)
    if trial.state not in (TrialState.FAILED, TrialState.CANCELLED):
        return trial
    sweeps.retry(sweeps.sweep(trial.sweep_id), user=user, now=clock.now(), trial_id=trial_id)
    return trials.trial(trial_id)


def find_node(reference: str, nodes: Sequence[Place]) -> Place:
    """The node that people mean by its name, its address, its id or the beginning of that.

    Raises:
        NotFound: none, or more than one.
    """
    found = [node for node in nodes if reference in (node.node_id, node.name, node.address)]
    found = found or [node for node in nodes if node.node_id.startswith(reference)]
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{node.name} ({node.node_id[:12]})" for node in found or nodes)
    raise NotFound(f"{'no node' if not found else 'more than one node'} goes by {reference!r}; there are: {there}")
