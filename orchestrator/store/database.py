"""Connections and transactions, made to mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

import copy
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import sqlalchemy as sa
from psycopg.types.array import ListBinaryDumper
from sqlalchemy.dialects import postgresql, sqlite

from orchestrator.errors import BadInput, Unreachable
from workloads import faults

AnyRow: TypeAlias = sa.Row[*tuple[Any, ...]]
Took: TypeAlias = Callable[[str, float], None]

LOCK_WAIT_S = 30  # a backup or an operator's own tool may hold SQLite's write lock for many seconds
CONNECT_WAIT_S = 10
# The API answers 40 requests at a time, beside the coordinator's loops; opening a connection costs more than a query
POOL = {"pool_size": 60, "max_overflow": 0, "pool_use_lifo": True}
SQLITE_OUTAGES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)


class Database:
    """One SQL database: `read()` and `write()` give a connection inside a transaction.

    On SQLite a write transaction takes the write lock at its beginning: one that takes it in mid-way fails at once,
    without waiting, when another process has written since it began.
    """

    def __init__(self, url: str, *, foreign_keys: bool = True, took: Took | None = None) -> None:
        """took: told "read" or "write" and the seconds of every transaction, the wait for its turn included."""
        self.url = _parse(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(self.url, foreign_keys) if self.is_sqlite else _postgresql_engine(self.url)
        self._turn = threading.Lock()
        self._took = took
        self._writer = self.engine.execution_options(orch_begin="BEGIN IMMEDIATE")
        self._guard: Callable[[sa.Connection], None] | None = None

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads. Raises Unreachable."""
        with self._timed("read"), self._translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """A transaction that only reads, and sees everything as it was at its first read. Raises Unreachable."""
        level = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}  # SQLite's never see less
        with self._translated(), self.engine.execution_options(**level).begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that writes: all of it or nothing. Raises Unreachable, and what a guard raises."""
        with self._timed("write"), self._own_turn(), self._translated(), self._writer.begin() as connection:
            if self._guard is not None:
                self._guard(connection)
            yield connection
            faults.point("commit")
        with self._translated():
            faults.point("committed")

    def guarded(self, guard: Callable[[sa.Connection], None]) -> Database:
        """The same database, where every transaction that writes begins with a check that may refuse it."""
        same = copy.copy(self)
        same._guard = guard
        return same

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        if self._took is None:
            yield
            return
        began = time.perf_counter()
        try:
            yield
        finally:
            self._took(kind, time.perf_counter() - began)

    @contextmanager
    def _own_turn(self) -> Iterator[None]:
        """Threads that write to SQLite queue here: at its own lock they would sleep and poll, up to 0.1 s each time."""
        if not self.is_sqlite:
            yield
        elif self._turn.acquire(timeout=LOCK_WAIT_S):
            try:
                yield
            finally:
                self._turn.release()
        else:
            raise Unreachable(f"the database {self.url} does not answer: other threads write for over {LOCK_WAIT_S} s")

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as error:
            if not _is_outage(error):
                raise
            raise Unreachable(f"the database {self.url} does not answer: {str(error.orig).strip()}") from error
        except ConnectionError as error:
            raise Unreachable(f"the database {self.url} does not answer: {error}") from error


def _is_outage(error: sa.exc.DBAPIError) -> bool:
    """Whether the database failed, and not the statement."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in SQLITE_OUTAGES
    return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise BadInput(
            f"the database URL {url!r} is none; write sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    if parsed.drivername in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise BadInput(f"orch keeps its state in SQLite or PostgreSQL; got the database URL {parsed}")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise BadInput(f"the database must be a file, for several processes use it; got {parsed}")
    return parsed


def _sqlite_engine(url: sa.URL, foreign_keys: bool) -> sa.Engine:
    _make_private_file(Path(str(url.database)))
    engine = sa.create_engine(url, connect_args={"timeout": LOCK_WAIT_S}, **POOL)

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions by itself: it would begin them without the write lock.
        connection.isolation_level = None
        _switch_to_wal(connection)
        # FULL: what `submit` accepted must outlive a power cut, which NORMAL does not promise in WAL mode.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("orch_begin", "BEGIN"))

    return engine


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """A new file is switched once and stays so. SQLite does not wait for the lock that this needs, so we do."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _make_private_file(path: Path) -> None:
    """SQLite gives its -wal and -shm files the rights of the database file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return


def _postgresql_engine(url: sa.URL) -> sa.Engine:
    # pre_ping: a connection that the server or a firewall has cut is replaced before it is used
    engine = sa.create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": CONNECT_WAIT_S}, **POOL)

    @sa.event.listens_for(engine, "connect")
    def configure(connection: psycopg.Connection[Any], _record: Any) -> None:
        # As text, every quote in an array of JSON would be escaped, by Python
        connection.adapters.register_dumper(list, ListBinaryDumper)

    return engine


def is_id(number: int) -> bool:
    """Whether a number could be a row's; a larger one is nobody's, but a database would stumble over it."""
    return 0 < number < 2**63


def insert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ON CONFLICT, in the connection's dialect."""
    return insert_in(connection.dialect.name, table)


def insert_in(dialect: str, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """The same in a dialect by name."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
