"""Commands on results: leaderboard, logs."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from orchestrator.cli import follow as live
from orchestrator.cli import render
from orchestrator.cli.command import add
from orchestrator.cli.connect import connect
from orchestrator.cli.sweeps import trial_number
from orchestrator.errors import BadInput, ExitCode


class BoardFormat(StrEnum):
    """How the leaderboard is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    add(app, leaderboard)
    add(app, logs)


def leaderboard(
    project: Annotated[
        str | None, typer.Option("--project", "-p", help="The newest sweep's project when left out.")
    ] = None,
    sweep: Annotated[str | None, typer.Option("--sweep", "-s", help="Only this sweep, by number or name.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many rows.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where to go on: `next_cursor` of the page before.")] = None,
    format: Annotated[BoardFormat, typer.Option("--format", "-f", help="table, json or csv.")] = BoardFormat.TABLE,
) -> int:
    """Rank configurations by the sweep's metric: mean over seeds, with its 95% interval.

    Examples:

      orch leaderboard --project routing

      orch leaderboard --sweep quickstart --format csv > board.csv
    """
    board = connect().leaderboard(project=project, sweep=sweep, limit=limit, cursor=cursor)
    match format:
        case BoardFormat.JSON:
            render.print_json(board)
        case BoardFormat.CSV:
            sys.stdout.write(render.leaderboard_csv(board))
        case BoardFormat.TABLE:
            render.out.print(render.leaderboard(board))
    return ExitCode.OK


def logs(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="Number of a trial, with or without a t before it.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the trial ends.")] = False,
) -> int:
    """Print what a trial printed.

    Example:

      orch logs t17 -f
    """
    number = int(trial) if trial.isdecimal() else trial_number(trial)
    if number is None:
        raise BadInput(f"{trial!r} is no trial; give its number, as `orch show SWEEP` lists it.")
    client = connect()
    if follow:
        live.log(client, number)
        return ExitCode.OK
    page = client.log(number, 0)
    while page.text:
        sys.stdout.write(page.text)
        page = client.log(number, page.next_offset)
    return ExitCode.OK
