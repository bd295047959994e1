"""Detached processes that are remembered by number and start time, so that nobody else's is ever ended."""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

AHEAD = -10
"""Niceness of what others wait for: nine times their claim on a core."""

MARK = "ORCH_SPAWNED"
"""In the environment of whatever descends from a process that we started, also after that was killed."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that we started.

    started: its creation time in seconds since 1970; a reused number has another. mark: see MARK; "" for none.
    """

    pid: int
    started: float
    mark: str = ""

    @classmethod
    def own(cls) -> Process:
        """The one that asks."""
        return cls(os.getpid(), psutil.Process().create_time())

    @property
    def is_alive(self) -> bool:
        """It still runs, and it is the same one."""
        return _find(self) is not None


def spawn(command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> Process:
    """Start `command` in a session of its own, with its output appended to `log`. `env` is added to ours."""
    log.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    with log.open("ab") as output:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {}), MARK: mark},
            start_new_session=True,
            close_fds=True,
        )
    return Process(child.pid, psutil.Process(child.pid).create_time(), mark)


def go_first() -> None:
    """Let this process have a core before others that want one too; to be called before it has threads.

    On a busy machine it would otherwise wait for its turn behind each of them. Does nothing where that is not allowed:
    it takes root, CAP_SYS_NICE or `ulimit -e`.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, min(os.getpriority(os.PRIO_PROCESS, 0), AHEAD))
    with suppress(OSError):
        # Linux may share the cores among sessions first; niceness then counts within each alone
        Path("/proc/self/autogroup").write_text(str(AHEAD))


def go_in_turn(pid: int) -> None:
    """What a process that goes first has started need not go first itself."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, max(os.getpriority(os.PRIO_PROCESS, pid), 0))


def stop(processes: Iterable[Process], *, grace_s: float = 5.0) -> None:
    """End these processes and what descends from them: asked first, killed after `grace_s`. Returns when all is gone.

    What one that was killed has left behind is ended, too.
    """
    processes = list(processes)
    family = _family(processes)
    for each in family:
        _signal(each, kill=False)
    _, alive = psutil.wait_procs(family, timeout=grace_s)
    # What was started while the others were asked to end is found only now
    family = {*alive, *(each for survivor in alive for each in _with_descendants(survivor)), *_family(processes)}
    for each in family:
        _signal(each, kill=True)
    psutil.wait_procs(family, timeout=10)


def carrying(variable: str, values: Collection[str]) -> list[psutil.Process]:
    """Processes that live and have one of these values in that variable of their environment."""
    found = []
    for each in psutil.process_iter() if values else ():
        with suppress(psutil.Error):
            if each.environ().get(variable) in values and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
    return found


def free_ports(count: int, preferred: Sequence[int] = ()) -> list[int]:
    """Ports on loopback that nobody listens on: the preferred ones where they are free."""
    held = [sock for port in preferred if (sock := _bound(port))][:count]
    held += [_bound(0) for _ in range(count - len(held))]  # type: ignore[misc]
    ports = [sock.getsockname()[1] for sock in held]
    for sock in held:
        sock.close()
    return ports


def _bound(port: int) -> socket.socket | None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.bind(("127.0.0.1", port))
    except OSError:
        sock.close()
        return None
    return sock


def _find(process: Process) -> psutil.Process | None:
    try:
        found = psutil.Process(process.pid)
        same = abs(found.create_time() - process.started) < 1.0
        return found if same and found.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _family(processes: Sequence[Process]) -> set[psutil.Process]:
    """Those that live, their descendants, and whoever carries a mark of theirs; not the one that asks."""
    roots = [root for process in processes if (root := _find(process))]
    found = {each.pid: each for root in roots for each in _with_descendants(root)}
    marks = {process.mark for process in processes} - {""}
    found = {each.pid: each for each in carrying(MARK, marks)} | found
    found.pop(os.getpid(), None)
    return set(found.values())


def _with_descendants(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _signal(process: psutil.Process, *, kill: bool) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill() if kill else process.terminate()
