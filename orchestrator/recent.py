"""What the cluster has, as it was a moment ago: neither each request nor each tick must ask Ray for itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from orchestrator.errors import Unreachable
from orchestrator.ports import Pool
from orchestrator.records import Capacity

BELIEVED_S = 2.0


class RecentPool:
    """`ports.Pool` that asks every two seconds at most; while one thread does, the others take the answer before.

    Safe to share by threads.
    """

    def __init__(self, pool: Pool, now_s: Callable[[], float] = time.monotonic) -> None:
        self._pool, self._now_s = pool, now_s
        self._asking = threading.Lock()
        self._until: float | None = None
        self._answer: Capacity | Unreachable = Unreachable("the cluster has not been asked yet")

    def capacity(self) -> Capacity:
        """What the cluster had lately. Raises Unreachable where it did not answer, without asking again at once."""
        if self._is_old() and self._asking.acquire(blocking=self._until is None):
            try:
                if self._is_old():
                    self._ask()
            finally:
                self._asking.release()
        if isinstance(self._answer, Unreachable):
            raise Unreachable(str(self._answer))
        return self._answer

    def _is_old(self) -> bool:
        return self._until is None or self._now_s() >= self._until

    def _ask(self) -> None:
        try:
            self._answer = self._pool.capacity()
        except Unreachable as error:
            self._answer = error
        self._until = self._now_s() + BELIEVED_S
