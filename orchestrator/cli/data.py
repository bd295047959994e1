"""Commands on data sets that arrive in packages: `orch data list`, `orch data prepare NAME`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from orchestrator.cli import render
from orchestrator.cli.command import add
from orchestrator.cli.sweeps import Format, FormatOption
from orchestrator.errors import BadInput, ExitCode


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    group = typer.Typer(
        help="Data sets that arrive in packages: what there is, and how it comes here.", no_args_is_help=True
    )
    add(group, list_data, "list")
    add(group, prepare)
    app.add_typer(group, name="data")


def list_data(format: FormatOption = Format.TABLE) -> int:
    """List the data sets: what brings each, its licence, and whether it is on this machine.

    Example:

      orch data list --format json
    """
    from workloads.datasets import list_datasets

    rows = [
        {
            "name": row.entry.name,
            "kind": row.entry.kind,
            "summary": row.entry.summary,
            "package": f"{row.entry.client} {row.entry.package} {row.entry.version}",
            "licence": row.entry.licence,
            "size_bytes": row.entry.size_bytes,
            "place": str(row.place) if row.place else None,
        }
        for row in list_datasets()
    ]
    if format is Format.JSON:
        typer.echo(json.dumps(rows, indent=2))
        return ExitCode.OK
    table = Table(box=None, pad_edge=False)
    for heading in ("NAME", "KIND", "HERE", "MB", "PACKAGE", "LICENCE", "WHAT"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        here = "yes" if row["place"] else "no"
        size = f"{int(row['size_bytes'] or 0) / 1e6:.1f}"
        words = (row["name"], row["kind"], here, size, row["package"], row["licence"], row["summary"])
        table.add_row(*map(str, words))
    render.out.print(table)
    return ExitCode.OK


def prepare(name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `orch data list` shows.")]) -> int:
    """Bring a data set to this machine through its package's own client; does nothing if it is there.

    Example:

      orch data prepare jsb_chorales
    """
    from workloads import datasets
    from workloads.errors import DataError

    render.note(f"preparing {name} ...")
    try:
        place = datasets.prepare(name)
    except DataError as error:
        raise BadInput(str(error)) from None
    render.say(str(place))
    return ExitCode.OK
