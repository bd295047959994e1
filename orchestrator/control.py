"""Use case: change what is wanted of a sweep. The coordinator does the rest on its next tick."""

from __future__ import annotations

from orchestrator.lifecycle import SWEEP_ENDS, Wish
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
