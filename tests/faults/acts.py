"""What a trial may do wrong, done for real: called in the process that trains, at a fault point."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

FLOOD_BYTES = 100_000_000
ROOM_BYTES = 40_000
SLEEPER = "import time; time.sleep(86400)  # a child that a trial forgot"


def hang() -> None:
    """Never comes back."""
    threading.Event().wait()


def leak() -> None:
    """Takes memory until somebody ends it."""
    taken = []
    while True:
        taken.append(bytearray(b"x" * 50_000_000))
        time.sleep(0.02)


def flood() -> None:
    """Prints 100 MB."""
    line = "x" * 999 + "\n"
    for _ in range(FLOOD_BYTES // len(line)):
        sys.stdout.write(line)


def fork() -> None:
    """Starts a child, which starts one of its own, and forgets them."""
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPER!r}])"
    subprocess.Popen([sys.executable, "-c", parent])


def fork_and_die() -> None:
    fork()
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def fill_the_disk() -> None:
    """No file of this process may grow beyond a size below that of a checkpoint, until after the next write.

    A warm group tries again at once: the trial is at its next checkpoint within a second.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, before[1]))
    threading.Timer(0.2, resource.setrlimit, (resource.RLIMIT_FSIZE, before)).start()


def tear_checkpoint_and_die() -> None:
    """The newest checkpoint of this trial loses its second half, as a disk may leave it that lost its power."""
    checkpoints = Path(sys.stdout._second.name).parent / "checkpoints"  # type: ignore[attr-defined]
    for path in checkpoints.glob(f"*-{max(each.name.split('-')[1] for each in checkpoints.glob('step-*'))}-*"):
        os.truncate(path, path.stat().st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)
