"""What a trial may do wrong, done for real: called in the process that trains, at a fault point."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
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
    """No file of this process may grow beyond a size below that of a checkpoint, until the write to come is over.

    Not for a fixed time: a warm group tries again at once, and is at its next checkpoint within a tenth of a second.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, before[1]))
    writer, thread = sys._getframe(4), threading.get_ident()  # who came to the point, above three frames of `faults`
    assert writer.f_code.co_name == "save", writer

    def restore() -> None:
        while any(frame is writer for frame, _ in traceback.walk_stack(sys._current_frames().get(thread))):
            time.sleep(0.005)
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    threading.Thread(target=restore).start()


def tear_checkpoint_and_die() -> None:
    """The newest checkpoint of this trial loses its second half, as a disk may leave it that lost its power."""
    checkpoints = Path(sys.stdout._second.name).parent / "checkpoints"  # type: ignore[attr-defined]
    for path in checkpoints.glob(f"*-{max(each.name.split('-')[1] for each in checkpoints.glob('step-*'))}-*"):
        os.truncate(path, path.stat().st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)
