"""The cluster at arm's length: neither a request nor a tick waits for Ray, for its answers or for what it is to do."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from orchestrator.errors import LeaseLost
from orchestrator.ports import Launcher
from orchestrator.records import Capacity, DriverStatus, Sweep

log = logging.getLogger(__name__)

BELIEVED_S = 2.0
STALE_S = 10.0

T = TypeVar("T")


class RecentCluster:
    """`ports.Launcher` that asks for the pool and for drivers by threads of its own, and answers meanwhile as before.

    The pool is asked for every two seconds at most, a driver whenever somebody wants to know of it. An answer of over
    ten seconds ago, when nobody did, is too old for that: who asks then waits for a new one, as for the first. Drivers
    are started and stopped by a thread, too, in the order wished for; what was refused is raised when the same is
    wished for next. Safe to share by threads.
    """

    def __init__(
        self,
        launcher: Launcher,
        confirm: Callable[[], None] = lambda: None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """confirm: called at the last moment before a driver is started or stopped; raises LeaseLost."""
        self._launcher = launcher
        self._pool = _Answers[Capacity]("pool", BELIEVED_S, now_s)
        self._drivers = _Answers[DriverStatus]("drivers", 0.0, now_s)
        self._acts = _Acts(confirm, now_s)
        self.job_id, self.living, self.failure = launcher.job_id, launcher.living, launcher.failure

    def capacity(self) -> Capacity:
        """What the cluster had lately. Raises Unreachable where it did not answer, without asking again at once."""
        return self._pool.get("", self._launcher.capacity)

    def status(self, sweep: Sweep) -> DriverStatus:
        """What the cluster lately knew of the driver of the sweep's current attempt. Raises Unreachable likewise."""
        job_id = self.job_id(sweep.id, sweep.attempt)
        if self._acts.awaits("start", job_id):
            return DriverStatus.PENDING
        return self._drivers.get(job_id, partial(self._launcher.status, sweep))

    def start(self, sweep: Sweep) -> str:
        """Have the sweep's driver started; its job id. Starting the same attempt twice is the same as once.

        Raises what kept the last such wish from coming true.
        """
        job_id = self.job_id(sweep.id, sweep.attempt)
        self._acts.wish("start", job_id, partial(self._start, sweep))
        return job_id

    def stop(self, sweep: Sweep) -> None:
        """Have the driver asked to stop. Safe to repeat. Raises what kept the last such wish from coming true."""
        self._acts.wish("stop", self.job_id(sweep.id, sweep.attempt), partial(self._launcher.stop, sweep))

    def end(self, job_id: str) -> None:
        """The same for a driver, whosever it is."""
        self._acts.wish("stop", job_id, partial(self._launcher.end, job_id))

    def _start(self, sweep: Sweep) -> None:
        job_id = self._launcher.start(sweep)
        self._drivers.put(job_id, DriverStatus.PENDING)  # by what was known before, it would be started again


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


class _Acts:
    """What the cluster is to do, done by a thread in the order wished. A wish that still waits is not made twice."""

    def __init__(self, confirm: Callable[[], None], now_s: Callable[[], float]) -> None:
        self._confirm, self._now_s = confirm, now_s
        self._wanted: dict[tuple[str, str], Callable[[], object]] = {}
        self._refused: dict[tuple[str, str], tuple[Exception, float]] = {}
        """What was raised, and when."""
        self._some, self._lock = threading.Event(), threading.Lock()
        # A daemon: it may hang in a wish to a cluster that is going down, and the next coordinator wishes the same
        threading.Thread(target=self._act, name="acts", daemon=True).start()

    def wish(self, what: str, job_id: str, act: Callable[[], object]) -> None:
        """Have it done. Raises what was raised by the last try, which takes note of it: the next wish is a new one."""
        key = what, job_id
        with self._lock:
            error, at_s = self._refused.pop(key, (None, 0.0))
            if error is None or self._now_s() - at_s >= STALE_S:
                error = None
                self._wanted.setdefault(key, act)
        if error is not None:
            raise error.with_traceback(None)
        self._some.set()

    def awaits(self, what: str, job_id: str) -> bool:
        """Whether that has been wished for and not yet been done."""
        return (what, job_id) in self._wanted

    def _act(self) -> None:
        while self._some.wait():
            self._some.clear()
            while self._wanted:
                with self._lock:
                    key, act = next(iter(self._wanted.items()))
                error = self._try(act)
                with self._lock:
                    if error is not None:
                        self._refused[key] = error, self._now_s()
                    del self._wanted[key]  # not before: until then, it is under way
            self._forget()

    def _try(self, act: Callable[[], object]) -> Exception | None:
        try:
            self._confirm()
            act()
        except LeaseLost as lost:  # another coordinator wishes what is to be now
            log.info("%s", lost)
        except Exception as error:
            return error
        return None

    def _forget(self) -> None:
        """Refusals that nobody came for."""
        with self._lock:
            for key in [key for key, (_, at_s) in self._refused.items() if self._now_s() - at_s >= STALE_S]:
                del self._refused[key]
