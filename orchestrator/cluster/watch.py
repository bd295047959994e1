"""Looks after the trial that a worker trains: whether it goes on, what memory it takes, what it leaves running."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

LOOK_EVERY_S = 0.5
KEPT = ("torch/_inductor/compile_worker", "multiprocessing.resource_tracker")
"""Helpers that serve all trials of a process: compilers of kernels, and what counts shared memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a trial must keep to.

    heartbeat_s: longest time without an optimiser step. memory_bytes: of one worker with all that it started; 0 for no
    limit.
    """

    heartbeat_s: float
    memory_bytes: int = 0


class Watch:
    """A thread, because what it looks after may never return."""

    def __init__(self, bounds: Bounds, give_up: Callable[[str], None]) -> None:
        """give_up: called once, in the thread, with what is wrong in one sentence."""
        self._bounds, self._give_up = bounds, give_up
        self._over = threading.Event()
        self._waits = False
        self._beaten = time.monotonic()

    def __enter__(self) -> Watch:
        self.beat()
        threading.Thread(target=self._run, name="watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def beat(self) -> None:
        """It goes on."""
        self._beaten = time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """It waits for others, and that may take any time."""
        self._waits = True
        try:
            yield
        finally:
            self.beat()
            self._waits = False

    def _run(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            if trouble := self._trouble():
                self._give_up(trouble)
                return

    def _trouble(self) -> str:
        silent_s = time.monotonic() - self._beaten
        if silent_s > self._bounds.heartbeat_s and not self._waits:
            return (
                f"it hangs: no step for {silent_s:.0f} s, and `heartbeat_timeout` is {self._bounds.heartbeat_s:g} s; "
                "where it stands is in its log"
            )
        limit = self._bounds.memory_bytes
        if limit and (taken := own_memory_bytes()) > limit:
            return f"it takes {taken / 1e9:.3g} GB of memory, and `resources.memory` allows {limit / 1e9:.3g} GB"
        return ""


def own_memory_bytes() -> int:
    """Memory that this process and those that it started would give back if they ended: without what is shared."""
    taken = 0
    for process in (psutil.Process(), *_children()):
        with suppress(psutil.Error):
            memory = process.memory_info()
            taken += memory.rss - getattr(memory, "shared", 0)
    return taken


def end_children() -> list[str]:
    """Kill the processes that a trial has left behind in this one; returns their command lines."""
    ended = []
    for child in _children():
        with suppress(psutil.Error):
            command = " ".join(child.cmdline())
            if not any(helper in command for helper in KEPT):
                child.kill()
                ended.append(command)
    return ended


def _children() -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process().children(recursive=True)
    return []
