"""A trial as Tune sees it: leases a slot, and passes on what happens there, one thing a step. Trains nothing itself."""

from __future__ import annotations

from typing import Any

import ray
from ray import tune

from orchestrator.cluster.messages import Command, Ended, Happening

HAPPENING = "happening"


class SweepTrial(tune.Trainable):
    """Config: `mailbox` (name of the sweep's mailbox actor) and `command`.

    `step` returns {HAPPENING: Started | Reported | Ended}. To be called again after Reported is the decision to train
    on; after Ended, to try again from the last checkpoint.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Tune's constructor."""
        self._mailbox = ray.get_actor(config["mailbox"])
        self._command: Command = config["command"]
        self._lease: int | None = None
        self._running = False

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial, in the same process."""
        self.cleanup()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next thing that happens."""
        return {HAPPENING: self._next()}

    def cleanup(self) -> None:
        """Give the slot back."""
        if self._lease is not None:
            ray.get(self._mailbox.release.remote(self._lease))
            self._lease = None

    def __repr__(self) -> str:
        return f"Trial {self._command.trial_id}" if hasattr(self, "_command") else type(self).__name__

    def _next(self) -> Happening:
        if self._lease is None:
            self._lease, started = ray.get(self._mailbox.lease.remote(self._command.trial_id))
            self._running = False
            return started
        if self._running:
            happening: Happening = ray.get(self._mailbox.go_on.remote(self._lease))
        else:
            happening = ray.get(self._mailbox.run.remote(self._lease, self._command))
            self._running = True
        if isinstance(happening, Ended):
            self.cleanup()
        return happening
