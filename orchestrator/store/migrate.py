"""Bring a database to the newest schema, once, however many processes start together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from orchestrator.errors import OrchError
from orchestrator.store import schema
from orchestrator.store.database import Database

MIGRATIONS = Path(__file__).parent / "migrations"
ADVISORY_LOCK = 0x6F726368  # "orch" in ASCII


def upgrade(url: str) -> None:
    """Run the missing migrations in one transaction; a database that has them all is only read.

    Raises OrchError if the database was made by a newer orch, Unreachable if it does not answer.
    """
    # Migrations rebuild tables on SQLite, and dropping a referenced table would take its dependants' rows along.
    database = Database(url, foreign_keys=False)
    try:
        with database.read() as connection:
            if revision_of(connection) == _newest():
                return
        with database.write() as connection:
            _take_lock(connection)
            _refuse_newer(database, revision_of(connection))
            command.upgrade(_config(connection), "head")
            _check_references(connection)
    finally:
        database.close()


def downgrade(url: str, revision: str) -> None:
    """Run migrations backwards down to `revision` ("base": an empty database). Raises as `upgrade` does."""
    database = Database(url, foreign_keys=False)
    try:
        with database.write() as connection:
            _take_lock(connection)
            command.downgrade(_config(connection), revision)
            _check_references(connection)
    finally:
        database.close()


@contextmanager
def rebuilding(
    database: Database,
    revision: str,
    *,
    expect: Callable[[sa.Connection], None],
    finish: Callable[[sa.Connection], None],
) -> Iterator[sa.Connection]:
    """One transaction: the schema of `revision`, what the caller writes into it, and then the newest schema.

    expect: looks at the database before anything is changed, and raises where it must not be. finish: writes into the
    newest schema.
    Raises OrchError if `revision`, or the database's own, is a newer orch's; Unreachable.
    """
    with database.write() as connection:
        _take_lock(connection)
        _refuse_newer(database, revision)
        _refuse_newer(database, revision_of(connection))
        expect(connection)
        lease = _held_lease(connection)
        if revision_of(connection) is not None:
            command.downgrade(_config(connection), "base")
        command.upgrade(_config(connection), revision)
        yield connection
        command.upgrade(_config(connection), "head")
        finish(connection)
        for row in lease:
            connection.execute(sa.insert(schema.lease).values(**row))
        _check_references(connection)


def _held_lease(connection: sa.Connection) -> list[dict[str, Any]]:
    """A coordinator that acts goes on: numbers once given are not given again."""
    if not sa.inspect(connection).has_table(schema.lease.name):
        return []
    return [dict(row) for row in connection.execute(sa.select(schema.lease)).mappings()]


def _config(connection: sa.Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _newest() -> str | None:
    return ScriptDirectory.from_config(_config()).get_current_head()


def revision_of(connection: sa.Connection) -> str | None:
    """Of the schema that is there; None where there is none."""
    return MigrationContext.configure(connection).get_current_revision()


def _take_lock(connection: sa.Connection) -> None:
    # SQLite's write transaction is the lock already
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))


def _refuse_newer(database: Database, revision: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is not None and revision not in known:
        raise OrchError(
            f"the database {database.url} has schema {revision}, which this orch does not know (its newest is "
            f"{_newest()}); install the newer orch that made it, or use another ORCH_HOME or ORCH_DATABASE_URL"
        )


def _check_references(connection: sa.Connection) -> None:
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        assert not broken, f"a migration broke references: {broken[:5]}"
