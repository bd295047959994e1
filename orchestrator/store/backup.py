"""A copy of the record in one file, taken and put back while others work; the same file for SQLite and PostgreSQL.

The file is gzipped JSON lines: a head (format, schema revision), for each table its columns and its rows, and a foot
with the SHA-256 of all that came before it. Rows are as the schema revision of the head has them; putting them back
makes that schema first and then runs the migrations that came later.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa

from orchestrator.errors import BadInput, OrchError
from orchestrator.store import migrate
from orchestrator.store.database import Database

FORMAT = "orch backup 1"
BATCH = 1000
NOT_COPIED = frozenset({"alembic_version", "lease"})
"""Who acts as the coordinator is true of one database and one moment only."""

Line: TypeAlias = Mapping[str, Any] | list[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a file holds. rows: by table. revision: of the schema."""

    revision: str
    created_at: str
    rows: Mapping[str, int]


def backup(url: str, path: Path, *, now: datetime) -> Copied:
    """Copy the database at `url` as it is at one moment into a new file, readable by its owner alone.

    Raises BadInput if the file exists or cannot be written, or the database has no schema; Unreachable.
    """
    if path.exists():
        raise BadInput(f"{path} exists already; a backup overwrites nothing: give another name")
    database = Database(url)
    try:
        with _new_file(path) as file, database.snapshot() as connection:
            return _write(file, connection, now)
    finally:
        database.close()


def restore(url: str, path: Path, *, taken: Mapping[str, int] | None = None) -> Copied:
    """Put a backup into a database that holds nothing yet, in one transaction, and bring it to the newest schema.

    taken: by table, the largest number that was given elsewhere; new rows get larger ones.
    Raises BadInput if the file is damaged or no backup, or the database holds something; OrchError if a newer orch
    made the file; Unreachable.
    """
    copied = verify(path)
    database = Database(url, foreign_keys=False)

    def pass_over(connection: sa.Connection) -> None:
        for table in _tables(connection):
            if (number := (taken or {}).get(table.name, 0)) > (_last_id(connection, table) or 0):
                _continue_after(connection, table, number)

    try:
        # Last, since a migration that rebuilds a table on SQLite counts on from the rows that it finds
        with migrate.rebuilding(database, copied.revision, expect=_expect_empty, finish=pass_over) as connection:
            _fill(connection, path)
    finally:
        database.close()
    return copied


def verify(path: Path) -> Copied:
    """Read a whole file and compare its checksum. Raises BadInput."""
    head: Mapping[str, Any] = {}
    rows: dict[str, int] = {}
    table = ""
    for line in _lines(path):
        if isinstance(line, list):
            rows[table] += 1
        elif "table" in line:
            table = line["table"]
            rows[table] = 0
        elif "format" in line:
            head = line
    return Copied(revision=head["revision"], created_at=head["created_at"], rows=rows)


class _Digested:
    """Writes lines and keeps their checksum."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, line: Line) -> None:
        data = json.dumps(line).encode() + b"\n"
        self.digest.update(data)
        self._file.write(data)


def _write(file: gzip.GzipFile, connection: sa.Connection, now: datetime) -> Copied:
    revision = migrate.revision_of(connection)
    if revision is None:
        raise BadInput(f"the database {connection.engine.url} holds nothing yet; there is nothing to back up")
    out, rows = _Digested(file), {}
    created_at = now.astimezone(UTC).isoformat()
    out.write({"format": FORMAT, "revision": revision, "created_at": created_at})
    for table in _tables(connection):
        out.write({"table": table.name, "columns": table.columns.keys(), "last_id": _last_id(connection, table)})
        rows[table.name] = 0
        ordered = sa.select(table).order_by(*table.primary_key.columns)
        for row in connection.execution_options(yield_per=BATCH).execute(ordered):
            out.write([_plain(value) for value in row])
            rows[table.name] += 1
    file.write(json.dumps({"sha256": out.digest.hexdigest()}).encode() + b"\n")
    return Copied(revision=revision, created_at=created_at, rows=rows)


def _tables(connection: sa.Connection) -> Sequence[sa.Table]:
    """As the database has them, not as the code of today does; referenced ones first."""
    metadata = sa.MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name not in NOT_COPIED]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)).isoformat()
    return value


def _lines(path: Path) -> Iterator[Line]:
    """All lines but the last, whose checksum has been compared by then."""
    digest, before = hashlib.sha256(), b""
    try:
        with gzip.open(path, "rb") as file:
            for data in file:
                if before:
                    digest.update(before)
                    yield json.loads(before)
                elif json.loads(data).get("format") != FORMAT:
                    raise ValueError
                before = data
        if json.loads(before)["sha256"] != digest.hexdigest():
            raise ValueError
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file") from None
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(f"{path} is damaged, or is no backup that `orch backup` made; nothing was changed") from None


def _expect_empty(connection: sa.Connection) -> None:
    for table in _tables(connection):
        if connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first():
            raise BadInput(
                f"the database {connection.engine.url} holds rows already (in {table.name}); a backup is put back into "
                "an empty one: move that away, or set ORCH_HOME or ORCH_DATABASE_URL"
            )


def _fill(connection: sa.Connection, path: Path) -> None:
    tables = {table.name: table for table in _tables(connection)}
    batch: list[dict[str, Any]] = []
    table: sa.Table | None = None
    readers: list[tuple[str, Callable[[Any], Any]]] = []

    def flush() -> None:
        if batch and table is not None:
            connection.execute(sa.insert(table), batch)
            batch.clear()

    for line in _lines(path):
        if isinstance(line, list):
            batch.append({name: read(value) for (name, read), value in zip(readers, line, strict=True)})
            if len(batch) == BATCH:
                flush()
        elif "table" in line:
            flush()
            table = tables[line["table"]]
            readers = [(name, _reader(table.columns[name])) for name in line["columns"]]
            _continue_after(connection, table, line["last_id"])
    flush()


def _reader(column: sa.Column[Any]) -> Callable[[Any], Any]:
    """From JSON to what the column takes. SQLite has no time zones: its columns hold UTC."""
    if not isinstance(column.type, sa.DateTime):
        return lambda value: value
    if column.type.timezone:
        return lambda value: value and datetime.fromisoformat(value)
    return lambda value: value and datetime.fromisoformat(value).replace(tzinfo=None)


def _last_id(connection: sa.Connection, table: sa.Table) -> int | None:
    """The last number that was given in the table, also to rows that are gone; None where rows have no number."""
    if connection.dialect.name == "sqlite":
        query = sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name")
        return connection.execute(query, {"name": table.name}).scalar_one_or_none()
    sequence = _sequence(connection, table)
    if sequence is None:
        return None
    found = connection.execute(sa.text(f"SELECT last_value, is_called FROM {sequence}")).one()
    return int(found.last_value) if found.is_called else None


def _continue_after(connection: sa.Connection, table: sa.Table, last_id: int | None) -> None:
    """No number is given a second time."""
    if last_id is None:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table.name})
        insert = sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :seq)")
        connection.execute(insert, {"name": table.name, "seq": last_id})
    elif (sequence := _sequence(connection, table)) is not None:
        connection.execute(sa.text("SELECT setval(:sequence, :last)"), {"sequence": sequence, "last": last_id})


def _sequence(connection: sa.Connection, table: sa.Table) -> str | None:
    if "id" not in table.columns:
        return None
    query = sa.text("SELECT pg_get_serial_sequence(:table, 'id')")
    return connection.execute(query, {"table": connection.dialect.identifier_preparer.format_table(table)}).scalar_one()


@contextmanager
def _new_file(path: Path) -> Iterator[gzip.GzipFile]:
    """It has its name only when it is whole, and takes nobody else's."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as file:
                yield file
            raw.flush()
            os.fsync(raw.fileno())
        os.link(partial, path)
    except FileExistsError:
        raise BadInput(f"{path} exists already; a backup overwrites nothing: give another name") from None
    except OSError as error:
        raise OrchError(f"{path} could not be written: {error.strerror}; nothing was left behind") from None
    finally:
        partial.unlink(missing_ok=True)
