"""What the cluster has, as it was a moment ago: neither each request nor each tick must ask Ray for itself."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from orchestrator.errors import Unreachable
from orchestrator.ports import Pool
from orchestrator.records import Capacity

BELIEVED_S = 2.0
STALE_S = 10.0


class RecentPool:
    """`ports.Pool` that asks every two seconds at most, by a thread of its own, and answers meanwhile as before.

    An answer of over ten seconds ago, when nobody was interested, is too old for that: who asks then waits for a new
    one. Safe to share by threads.
    """

    def __init__(self, pool: Pool, now_s: Callable[[], float] = time.monotonic) -> None:
        self._pool, self._now_s = pool, now_s
        self._asking, self._wanted = threading.Lock(), threading.Event()
        self._asked_s = -math.inf
        self._answer: Capacity | Unreachable = Unreachable("the cluster has not been asked yet")
        # A daemon: it may hang in a question to a cluster that is going down
        threading.Thread(target=self._ask_when_wanted, name="pool", daemon=True).start()

    def capacity(self) -> Capacity:
        """What the cluster had lately. Raises Unreachable where it did not answer, without asking again at once."""
        age_s, answer = self._now_s() - self._asked_s, self._answer
        if age_s >= STALE_S:
            answer = self._ask(STALE_S)
        elif age_s >= BELIEVED_S:
            self._wanted.set()
        if isinstance(answer, Unreachable):
            raise Unreachable(str(answer))
        return answer

    def _ask_when_wanted(self) -> None:
        while self._wanted.wait():
            self._wanted.clear()
            self._ask(BELIEVED_S)

    def _ask(self, older_than_s: float) -> Capacity | Unreachable:
        """The answer, a new one if it is as old as that: another thread may have asked meanwhile."""
        with self._asking:
            if self._now_s() - self._asked_s >= older_than_s:
                try:
                    self._answer = self._pool.capacity()
                except Unreachable as error:
                    self._answer = error
                self._asked_s = self._now_s()
            return self._answer
