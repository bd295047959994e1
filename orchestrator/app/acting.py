"""The loop of a coordinator: it ticks while it is the one that acts, and waits for its turn otherwise."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from orchestrator.coordinator import Coordinator
from orchestrator.errors import LeaseLost, Unreachable
from orchestrator.leadership import Leadership

log = logging.getLogger(__name__)

TICK_S = 0.25
IDLE_SHARE = 9
"""Of a tick's time, what at least passes until the next."""
QUIET_S = 1.0
"""Pause after a tick that found the database or the cluster away."""


class Acting:
    """reconcile: lines on what is found when it begins to act. took: told the seconds of every tick."""

    def __init__(
        self,
        leadership: Leadership,
        coordinator: Coordinator,
        reconcile: Callable[[], list[str]],
        took: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._leadership, self._coordinator, self._reconcile, self._took = leadership, coordinator, reconcile, took
        self._reconciled = 0
        """The number under which it last began."""

    def run(self, stop: threading.Event) -> None:
        """Until told to stop. What does not answer is asked again: it is away, not gone."""
        away = ""
        while not stop.is_set():
            try:
                # Over a long queue a tick takes long, and requests need most of the process
                pause = max(TICK_S, IDLE_SHARE * self._act())
                if away:
                    log.info("back again after: %s", away)
                    away = ""
            except LeaseLost:
                self._leadership.lost()
                pause = TICK_S
            except Unreachable as error:
                if str(error) != away:
                    away = str(error)
                    log.warning("%s", away)
                pause = QUIET_S
            except Exception:
                # A coordinator that dies takes every sweep's progress with it; what it met is logged and met again.
                log.exception("a tick failed")
                pause = QUIET_S
            stop.wait(pause)
        self._leadership.release()

    def _act(self) -> float:
        """Seconds that the tick took."""
        if not self._leadership.acts():
            return 0.0
        if self._reconciled != self._leadership.number():
            for line in self._reconcile():
                log.info("%s", line)
            self._reconciled = self._leadership.number()
        began = time.perf_counter()
        self._coordinator.tick()
        took_s = time.perf_counter() - began
        self._took(took_s)
        return took_s
