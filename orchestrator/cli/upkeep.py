"""Commands on the record itself, which need no service: backup, restore."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import render
from orchestrator.cli.command import add
from orchestrator.errors import BadInput, ExitCode
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from orchestrator.store.backup import Copied

FileArgument = Annotated[Path, typer.Argument(metavar="FILE")]


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    add(app, backup)
    add(app, restore)


def backup(file: FileArgument) -> int:
    """Copy the database into a new file, as it is at one moment; the service may run. Checkpoints are not copied.

    Example:

      orch backup monday.backup
    """
    # SQLAlchemy and Alembic take most of a second to import
    from orchestrator.store.backup import backup as run

    copied = run(_database(), file, now=datetime.now(UTC))
    render.say(f"{file} has {_told(copied)}")
    return ExitCode.OK


def restore(file: FileArgument) -> int:
    """Put a backup into a database that holds nothing yet: SQLite or PostgreSQL, whichever it came from.

    Example:

      ORCH_HOME=/srv/orch orch restore monday.backup
    """
    from orchestrator.store.backup import restore as run  # as above

    url = _database()
    render.say(f"restored {_told(run(url, file))}")
    return ExitCode.OK


def _database() -> str:
    settings = Settings.from_env()
    if settings.url:
        raise BadInput(
            "ORCH_URL names a coordinator elsewhere, and this command needs its database: run it there, or unset "
            "ORCH_URL and set ORCH_DATABASE_URL."
        )
    return settings.database_url


def _told(copied: Copied) -> str:
    numbers = ", ".join(f"{copied.rows.get(table, 0):,} {table}s" for table in ("sweep", "trial", "event"))
    return f"{numbers} as of {copied.created_at}, schema {copied.revision}"
