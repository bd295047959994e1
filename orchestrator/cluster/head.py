"""A Ray head of one's own: started on loopback as a detached process tree, ended exactly. Imports no Ray."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

import psutil

from orchestrator.errors import ClusterError
from orchestrator.processes import carrying

HOST = "127.0.0.1"
MARK = "ORCH_RAY_HEAD"
START_TIMEOUT_S = 90.0
TERM_GRACE_S = 2.0
PORT_OPTIONS = (
    "--port",
    "--dashboard-port",
    "--ray-client-server-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--runtime-env-agent-port",
    "--metrics-export-port",
    "--node-manager-port",
    "--object-manager-port",
)
NOT_FOR_TRIALS = frozenset(
    # Every trial inherits the head's environment: other clusters' addresses would mislead it, secrets are not its own
    {"RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "ORCH_TOKEN", "ORCH_DATABASE_URL", "ORCH_WEBHOOK"}
)
# A Unix socket's path has at most 107 bytes, and Ray appends about 65 to its temporary directory
LONGEST_TEMPORARY_DIRECTORY = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What was started.

    pid, created: the process at the root of the tree, and its creation time (seconds since the epoch), by which it is
        told from a later process that got the same number.
    mark: every process of the tree carries it in its environment, also those that lost their parent.
    gcs_address: host:port for `ray.init`. dashboard_url: for people, the Jobs API and the state API.
    """

    pid: int
    created: float
    mark: str
    gcs_address: str
    dashboard_url: str


def start(
    home: Path, log: Path, *, cpus: int | None = None, gpus: int | None = None, env: Mapping[str, str] = os.environ
) -> Head:
    """Start a head for the service whose state lives in `home`; return when its dashboard answers (about 5 s).

    Args:
        home: two homes on one machine get heads that do not meet: own ports, own temporary directory.
        log: file that takes the output of `ray start`.
        cpus, gpus: what the node offers; what the machine has when left out.

    Raises:
        ClusterError: it did not come up, with the last lines of its log.
    """
    for attempt in range(3):
        try:
            return _start(home, log, cpus, gpus, env)
        except _PortTaken:
            if attempt == 2:
                raise
    raise AssertionError("unreachable")


def stop(head: Head) -> None:
    """End the process tree of `head` and nothing else; return when no process of it is left. Safe to repeat."""
    tree = _tree(head)
    # The children first: `ray start --block` itself answers SIGTERM with a drain of up to 30 s
    for process in tree:
        if process.pid != head.pid:
            with suppress(psutil.Error):
                process.terminate()
    psutil.wait_procs([process for process in tree if process.pid != head.pid], timeout=TERM_GRACE_S)
    while left := _tree(head):
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=TERM_GRACE_S)


def is_running(head: Head) -> bool:
    """Whether the root of the tree is alive."""
    return _root(head) is not None


class _PortTaken(ClusterError):
    """Somebody took a port between our choice and Ray's use of it."""


def _start(home: Path, log: Path, cpus: int | None, gpus: int | None, env: Mapping[str, str]) -> Head:
    mark = uuid.uuid4().hex
    ports = dict(zip(PORT_OPTIONS, _free_ports(len(PORT_OPTIONS)), strict=True))
    temporary = _temporary_directory(home)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += [f"--node-ip-address={HOST}", f"--dashboard-host={HOST}", f"--temp-dir={temporary}"]
    command += [f"{option}={port}" for option, port in ports.items()]
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    command += [f"--num-cpus={cpus}"] if cpus is not None else []
    command += [f"--num-gpus={gpus}"] if gpus is not None else []
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        started = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=temporary,
            env=_environment(env, mark),
        )
    head = Head(
        pid=started.pid,
        created=psutil.Process(started.pid).create_time(),
        mark=mark,
        gcs_address=f"{HOST}:{ports['--port']}",
        dashboard_url=f"http://{HOST}:{ports['--dashboard-port']}",
    )
    try:
        _wait_until_up(head, started, log)
    except BaseException:
        stop(head)
        raise
    return head


def _environment(env: Mapping[str, str], mark: str) -> dict[str, str]:
    kept = {name: value for name, value in env.items() if name not in NOT_FOR_TRIALS}
    return {
        # A token left in ~/.ray by another cluster would lock our own clients out
        "RAY_AUTH_MODE": "disabled",
        "PYTHONUNBUFFERED": "1",
        # What a trial has started ends with its worker, however that ends
        "RAY_process_group_cleanup_enabled": "true",
        **kept,
        # Ray takes 127.0.0.1 for "the address that other nodes reach"; told that there are none, it stays on loopback
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        MARK: mark,
    }


def _temporary_directory(home: Path) -> Path:
    """A short directory of this home's own, rid of earlier sessions."""
    base = gettempdir() if len(gettempdir()) < LONGEST_TEMPORARY_DIRECTORY - 15 else "/tmp"
    path = Path(base) / f"orch-{hashlib.sha256(str(home).encode()).hexdigest()[:8]}"
    path.mkdir(mode=0o700, exist_ok=True)
    for session in path.glob("session_*"):
        if session.is_symlink():
            session.unlink()
        else:
            shutil.rmtree(session, ignore_errors=True)
    return path


def _free_ports(count: int) -> list[int]:
    """Distinct ports that nobody listens on now. All are held until the last is known."""
    holders = [socket.socket() for _ in range(count)]
    try:
        for holder in holders:
            holder.bind((HOST, 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()


def _wait_until_up(head: Head, started: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if started.poll() is not None:
            said = _last_lines(log)
            kind = _PortTaken if "port" in said.lower() and "use" in said.lower() else ClusterError
            raise kind(f"Ray did not start: exit code {started.returncode}. The end of {log}:\n{said}")
        if _answers(head.dashboard_url):
            return
        time.sleep(0.1)
    raise ClusterError(
        f"Ray's dashboard at {head.dashboard_url} did not answer within {START_TIMEOUT_S:.0f} s. "
        f"The end of {log}:\n{_last_lines(log)}"
    )


def _answers(dashboard_url: str) -> bool:
    """The dashboard is up before its node is."""
    try:
        with urllib.request.urlopen(f"{dashboard_url}/api/v0/nodes", timeout=2) as answer:
            return bool(json.load(answer)["data"]["result"]["total"])
    except (OSError, urllib.error.URLError, ValueError, KeyError):
        return False


def _last_lines(log: Path, count: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def _root(head: Head) -> psutil.Process | None:
    with suppress(psutil.Error):
        process = psutil.Process(head.pid)
        if abs(process.create_time() - head.created) < 1.0 and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _tree(head: Head) -> list[psutil.Process]:
    """The root, its descendants, and whoever carries the mark; none that has ended already."""
    found: dict[int, psutil.Process] = {}
    root = _root(head)
    if root is not None:
        with suppress(psutil.Error):
            found |= {process.pid: process for process in [root, *root.children(recursive=True)]}
    found = {process.pid: process for process in carrying(MARK, {head.mark})} | found
    found.pop(os.getpid(), None)
    return [process for process in found.values() if _is_alive(process)]


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False
