"""What the cluster said a moment ago: neither each request nor each tick must wait for Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from orchestrator.ports import Launcher
from orchestrator.records import Capacity, DriverStatus, Sweep

BELIEVED_S = 2.0
STALE_S = 10.0

T = TypeVar("T")


class RecentCluster:
    """`ports.Launcher` that asks for the pool and for drivers by threads of its own, and answers meanwhile as before.

    The pool is asked for every two seconds at most, a driver whenever somebody wants to know of it. An answer of over
    ten seconds ago, when nobody did, is too old for that: who asks then waits for a new one, as for the first. What is
    to be done is done at once. Safe to share by threads.
    """

    def __init__(self, launcher: Launcher, now_s: Callable[[], float] = time.monotonic) -> None:
        self._launcher = launcher
        self._pool = _Answers[Capacity]("pool", BELIEVED_S, now_s)
        self._drivers = _Answers[DriverStatus]("drivers", 0.0, now_s)
        self.job_id, self.stop, self.end = launcher.job_id, launcher.stop, launcher.end
        self.living, self.failure = launcher.living, launcher.failure

    def capacity(self) -> Capacity:
        """What the cluster had lately. Raises Unreachable where it did not answer, without asking again at once."""
        return self._pool.get("", self._launcher.capacity)

    def status(self, sweep: Sweep) -> DriverStatus:
        """What the cluster lately knew of the driver of the sweep's current attempt. Raises Unreachable likewise."""
        return self._drivers.get(self.job_id(sweep.id, sweep.attempt), partial(self._launcher.status, sweep))

    def start(self, sweep: Sweep) -> str:
        """Start the sweep's driver and return its job id. Starting the same attempt twice is the same as once."""
        job_id = self._launcher.start(sweep)
        self._drivers.put(job_id, DriverStatus.PENDING)  # by what was known before, it would be started again
        return job_id


@dataclass(frozen=True, slots=True)
class _Answer(Generic[T]):
    """What was said or raised, and when."""

    said: T | Exception
    at_s: float

    def out(self) -> T:
        if isinstance(self.said, Exception):
            raise self.said.with_traceback(None)  # raised again and again, it would grow one
        return self.said


class _Answers(Generic[T]):
    """The last answer to each question. Where one is older than `believed_s`, a thread fetches the next, in turn."""

    def __init__(self, name: str, believed_s: float, now_s: Callable[[], float]) -> None:
        self._believed_s, self._now_s = believed_s, now_s
        self._last: dict[str, _Answer[T]] = {}
        self._wanted: dict[str, Callable[[], T]] = {}
        self._asking: dict[str, threading.Lock] = {}
        self._some, self._lock = threading.Event(), threading.Lock()
        # A daemon: it may hang in a question to a cluster that is going down
        threading.Thread(target=self._fetch, name=name, daemon=True).start()

    def get(self, key: str, ask: Callable[[], T]) -> T:
        last = self._last.get(key)
        if last is None or self._age_s(last) >= STALE_S:
            return self._ask(key, ask, older_than_s=STALE_S).out()
        if self._age_s(last) >= self._believed_s:
            with self._lock:
                self._wanted.setdefault(key, ask)
            self._some.set()
        return last.out()

    def put(self, key: str, answer: T) -> None:
        with self._lock:
            self._last[key] = _Answer(answer, self._now_s())

    def _fetch(self) -> None:
        while self._some.wait():
            self._some.clear()
            while self._wanted:
                with self._lock:
                    longest = next(iter(self._wanted))
                    ask = self._wanted.pop(longest)
                self._ask(longest, ask, older_than_s=self._believed_s)
            self._forget()

    def _ask(self, key: str, ask: Callable[[], T], *, older_than_s: float) -> _Answer[T]:
        """The answer, a new one if it is as old as that: another thread may have asked meanwhile.

        Other questions do not wait for this one.
        """
        with self._lock:
            asking = self._asking.setdefault(key, threading.Lock())
        with asking:
            last = self._last.get(key)
            if last is None or self._age_s(last) >= older_than_s:
                began_s = self._now_s()
                said = self._answer(ask)
                with self._lock:
                    last = self._last.get(key)
                    if last is None or last.at_s <= began_s:  # what was put meanwhile is newer
                        last = self._last[key] = _Answer(said, self._now_s())
            return last

    def _forget(self) -> None:
        """What is too old to be told."""
        with self._lock:
            for key in [key for key, last in self._last.items() if self._age_s(last) >= STALE_S]:
                del self._last[key]
                self._asking.pop(key, None)

    def _age_s(self, answer: _Answer[T]) -> float:
        return self._now_s() - answer.at_s

    @staticmethod
    def _answer(ask: Callable[[], T]) -> T | Exception:
        try:
            return ask()
        except Exception as error:
            return error
