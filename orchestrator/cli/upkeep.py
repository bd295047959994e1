"""Commands on the record itself, which need no service: backup, restore, repair."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import render
from orchestrator.cli.command import add
from orchestrator.cli.connect import user_name
from orchestrator.cli.sweeps import Format, FormatOption
from orchestrator.errors import BadInput, ExitCode
from orchestrator.report import RepairDocument
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from orchestrator.repair import Finding
    from orchestrator.store.backup import Copied

FileArgument = Annotated[Path, typer.Argument(metavar="FILE")]


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    add(app, backup)
    add(app, restore)
    add(app, repair)


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
    # A trial made after the backup left checkpoints: one that got its number now would take them for its own
    copied = run(url, file, taken=Settings.from_env().numbers_in_storage())
    render.say(f"restored {_told(copied)}")
    return ExitCode.OK


def repair(
    sweep: Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="Number or name; all when left out.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only look; exit code 1 if anything is found.")] = False,
    format: FormatOption = Format.TABLE,
) -> int:
    """Hold the record against its own curves and the trials' checkpoints, and put right what can be.

    Rows that a checkpoint has and the record has not are recorded; summaries, scores, and with them the leaderboard,
    are worked out anew. What could not be mended is told, with exit code 1.

    Example:

      orch repair --check
    """
    _database()
    # Reading checkpoints takes torch
    from orchestrator.app.mend import mend

    found: list[RepairDocument] = []

    def tell(finding: Finding) -> None:
        found.append(RepairDocument(**dataclasses.asdict(finding)))
        if format is Format.TABLE:
            mended = "mended: " if finding.mended else ""
            render.say(f"{mended}sweep {finding.sweep_id}, trial {finding.trial_id}: {finding.what}")

    sweeps = mend(Settings.from_env(), sweep, user=user_name(), check=check, found=tell)
    left = [finding for finding in found if not finding.mended]
    if format is Format.JSON:
        render.print_json(found)
    else:
        done = f"{len(found) - len(left)} mended, " if not check else ""
        render.say(f"{sweeps} sweeps looked through: {len(found)} findings, {done}{len(left)} as they were")
    return ExitCode.WORK_FAILED if left else ExitCode.OK


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
