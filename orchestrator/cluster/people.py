"""What people want of single trials and of nodes, as a driver looks it up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from orchestrator.ports import TrialStore
from orchestrator.records import Wished

LOOK_EVERY_S = 1.0


class People:
    """Looks about once a second, whenever the thread that runs Tune asks."""

    def __init__(
        self,
        sweep_id: int,
        rows: TrialStore,
        drained: Callable[[], frozenset[str]],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """drained: nodes that the pool has left by now. A trial that left one sooner could be put back there."""
        self.drained = drained
        self._sweep_id, self._rows, self._now_s = sweep_id, rows, now_s
        self._looked_s: float | None = None
        self._wishes: Mapping[int, Wished] = {}
        self._waiting: frozenset[int] = frozenset()

    def wish(self, trial_id: int) -> Wished | None:
        """What is to become of a trial that runs; None where it is to run on."""
        self._look()
        return self._wishes.get(trial_id)

    def waiting(self, anew: bool = False) -> frozenset[int]:
        """Trials that are to wait for a slot; anew: as it is at this moment."""
        self._look(anew)
        return self._waiting

    def _look(self, anew: bool = False) -> None:
        now_s = self._now_s()
        if anew or self._looked_s is None or now_s - self._looked_s >= LOOK_EVERY_S:
            self._wishes = self._rows.wishes(self._sweep_id)
            self._waiting = frozenset(self._rows.waiting(self._sweep_id))
            self._looked_s = now_s
