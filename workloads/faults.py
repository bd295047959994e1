"""Named points in the code at which tests make things go wrong. Off unless ORCH_FAULTS names a directory; then free.

    dispatch    before the coordinator asks Ray for a driver
    heartbeat   after each optimiser step of a trial
    report      before a trial's row leaves its worker
    checkpoint  before a checkpoint is written
    commit      before a transaction that writes is committed
    committed   after that, before its caller hears of it

A fault is a file of that directory, laid there by `arm`. Whichever process comes to its point first takes it, by
renaming the file, so that it strikes once over all processes and restarts, and what has struck can be counted.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import random
import signal
import time
from pathlib import Path

POINTS = ("dispatch", "heartbeat", "report", "checkpoint", "commit", "committed")
VARIABLE = "ORCH_FAULTS"
ARMED, STRUCK = ".armed", ".struck"

_DIRECTORY = os.environ.get(VARIABLE)
# Of its own: the generators that training draws from must not notice
_CHANCE = random.Random(f"faults of {os.getpid()}")


def point(name: str) -> None:
    """A place where a fault may strike: nothing happens while none is armed."""
    if _DIRECTORY:
        _meet(Path(_DIRECTORY), name)


def arm(directory: Path, name: str, act: str, *, count: int = 1, rate: float = 1.0, delay_s: float = 0.0) -> list[Path]:
    """Lay faults; returns their files.

    Args:
        name: one of POINTS.
        act: "kill" (the process, by SIGKILL), "delay", "error" (a ConnectionResetError, which is an OSError), or
            "module:function", which is called.
        count: of faults; each strikes once.
        rate: chance that a process takes it when it comes by.
        delay_s: of "delay"; other acts come after it.

    Raises:
        ValueError: no such point.
    """
    if name not in POINTS:
        raise ValueError(f"no fault point {name!r}; there are {', '.join(POINTS)}")
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(count):
        path = directory / f"{name}-{time.time_ns()}-{number:03d}{ARMED}"
        partial = path.with_suffix(".new")
        partial.write_text(json.dumps({"act": act, "rate": rate, "delay_s": delay_s}))
        files.append(partial.rename(path))
    return files


def struck(directory: Path, name: str = "") -> int:
    """How many have struck so far, at this point or at all."""
    return len(list(directory.glob(f"{name or '*'}-*{STRUCK}")))


def _meet(directory: Path, name: str) -> None:
    """One fault at most, the oldest: who lays several has them strike in that order."""
    for path in sorted(directory.glob(f"{name}-*{ARMED}")):
        try:
            fault = json.loads(path.read_text())
            if _CHANCE.random() >= fault["rate"]:
                continue
            path.rename(path.with_suffix(STRUCK))
        except FileNotFoundError:  # another process took it
            continue
        _strike(name, **fault)
        return


def _strike(name: str, *, act: str, rate: float, delay_s: float) -> None:
    time.sleep(delay_s)
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif act == "error":
        raise ConnectionResetError(errno.ECONNRESET, f"a fault that a test put at {name}")
    elif act != "delay":
        module, _, function = act.partition(":")
        getattr(importlib.import_module(module), function)()
