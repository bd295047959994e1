"""Commands on bearer tokens: `orch token create|list|rotate|revoke`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from orchestrator import report
from orchestrator.access import Role
from orchestrator.cli import render
from orchestrator.cli.command import add
from orchestrator.cli.connect import connect
from orchestrator.cli.sweeps import Format, FormatOption
from orchestrator.errors import ExitCode

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Whose the token is.")]


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    group = typer.Typer(help="Bearer tokens: who may read, submit, and administer.", no_args_is_help=True)
    add(group, create)
    add(group, list_tokens, "list")
    add(group, rotate)
    add(group, revoke)
    app.add_typer(group, name="token")


def create(
    name: NameArgument,
    role: Annotated[
        Role, typer.Option("--role", "-r", help="viewer reads, submitter submits and controls too, admin does all.")
    ] = Role.SUBMITTER,
    project: Annotated[
        str | None, typer.Option("--project", "-p", help="The only project that it reaches; all when left out.")
    ] = None,
    format: FormatOption = Format.TABLE,
) -> int:
    """Make a token and print it, this once: the database keeps a hash of it.

    Examples:

      orch token create ada --role submitter --project routing

      ORCH_URL=https://orch.lab:7070 ORCH_TOKEN=orch_... orch list
    """
    return _told(connect().create_token(name, role, project), format)


def list_tokens(format: FormatOption = Format.TABLE) -> int:
    """List all tokens, without their secrets.

    Example:

      orch token list
    """
    found = connect().tokens()
    if format is Format.JSON:
        render.print_json(found)
        return ExitCode.OK
    table = Table(box=None, pad_edge=False)
    for heading in ("NAME", "ROLE", "PROJECT", "MADE BY", "MADE", "REVOKED"):
        table.add_column(heading)
    for each in found.tokens:
        made, ended = each.created_at[:16], (each.revoked_at or "")[:16]
        table.add_row(each.name, each.role, each.project or "all", each.created_by, made, ended)
    render.out.print(table)
    return ExitCode.OK


def rotate(name: NameArgument, format: FormatOption = Format.TABLE) -> int:
    """Give a token a new secret and print it; the old one is worth nothing from now on.

    Example:

      orch token rotate ada
    """
    return _told(connect().rotate_token(name), format)


def revoke(name: NameArgument, format: FormatOption = Format.TABLE) -> int:
    """End a token.

    Example:

      orch token revoke ada
    """
    ended = connect().revoke_token(name)
    if format is Format.JSON:
        render.print_json(ended)
    else:
        render.say(f"token {ended.name} is revoked")
    return ExitCode.OK


def _told(made: report.NewTokenDocument, format: Format) -> int:
    if format is Format.JSON:
        render.print_json(made)
    else:
        reach = f"project {made.project}" if made.project else "all projects"
        render.note(f"token {made.name}: {made.role}, {reach}; it is told this once")
        render.say(made.token)
    return ExitCode.OK
