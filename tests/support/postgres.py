"""A private PostgreSQL server from the installed binaries: free port, temporary directory, never as root."""

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

START_WITHIN_S = 60
PR_SET_PDEATHSIG = 1

HOW_TO_INSTALL = (
    "PostgreSQL's server programs (initdb, postgres) are neither under /usr/lib/postgresql/*/bin nor on the PATH. "
    "orch keeps its state in SQLite or PostgreSQL, and these tests start a private server to check the latter. "
    "Install it with `apt-get install postgresql` (Debian, Ubuntu) or `brew install postgresql` (macOS); "
    "no server needs to run."
)

INITDB = ("-U", "orch", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")

# Durability is not what these tests check, and a test machine's disk is slow.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_connections": "100",
    "listen_addresses": "127.0.0.1",
    "timezone": "Asia/Kathmandu",  # a zone that nobody mistakes for UTC
}


@dataclass
class PostgresServer:
    """A running server whose superuser `orch` needs no password."""

    port: int
    launch: Callable[[], subprocess.Popen[bytes]]
    log: Path

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Returns when it answers."""
        self.process = self.launch()
        _wait_until_up(self, self.process, self.log)

    def stop(self, by: signal.Signals = signal.SIGINT) -> None:
        """By default PostgreSQL's "fast" shutdown; SIGQUIT leaves it to recover at the next start, as after a crash."""
        self.process.send_signal(by)
        self.process.wait(timeout=30)

    def url(self, database: str) -> str:
        return f"postgresql://orch@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a new database, a copy of `template` (by default empty), which is dropped in the end."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        try:
            yield self.url(name)
        finally:
            # Over a connection of its own: the server may have been restarted in between
            self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def private_postgres(**changed: str) -> Iterator[PostgresServer]:
    """changed: settings that differ from SETTINGS.

    Raises FileNotFoundError, which says how to install PostgreSQL, where there is none.
    """
    binaries = find_binaries()
    root = Path(tempfile.mkdtemp(prefix="orch-postgres-"))
    user = _unprivileged_user()
    data = root / "data"
    data.mkdir(mode=0o700)
    if user:
        for path in (root, data):
            os.chown(path, user.pw_uid, user.pw_gid)
    try:
        command = [
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "orch",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=root, **_as(user))
        assert done.returncode == 0, f"initdb failed: {done.stdout}{done.stderr}"
        port = _free_port()
        settings = SETTINGS | changed
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

        def launch() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [binaries / "postgres", "-D", data, "-p", str(port), "-k", root, *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=root,
                preexec_fn=_die_with_parent,
                **_as(user),
            )

        with (root / "log").open("ab") as log:
            found = PostgresServer(port, launch, root / "log")
            try:
                yield found
            finally:
                found.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def find_binaries() -> Path:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[4]))
    if installed:
        return installed[-1].parent
    on_path = shutil.which("postgres")
    if on_path is None:
        raise FileNotFoundError(HOW_TO_INSTALL)
    return Path(on_path).resolve().parent


def _unprivileged_user() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("neither a user postgres nor nobody exists here, and PostgreSQL refuses to run as root")


def _as(user: pwd.struct_passwd | None) -> dict[str, object]:
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def _die_with_parent() -> None:
    """A test run that is killed must leave no server behind. Linux only; elsewhere it stays behind."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(found: PostgresServer, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while True:
        try:
            psycopg.connect(found.url("postgres"), connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL did not start: {log.read_text(errors='replace')[-2000:]}") from None
            time.sleep(0.05)
