"""Commands on the service itself: up, down, status, doctor."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from orchestrator import local
from orchestrator.cli import doctor as checks
from orchestrator.cli import render
from orchestrator.cli.command import add
from orchestrator.cli.connect import connect
from orchestrator.cli.sweeps import Format, FormatOption
from orchestrator.errors import ExitCode
from orchestrator.settings import Settings


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    add(app, up)
    add(app, down)
    add(app, status)
    add(app, doctor)


def up(format: FormatOption = Format.TABLE) -> int:
    """Start what is not running yet: a Ray head, an MLflow server, the coordinator. Safe to repeat.

    RAY_ADDRESS, MLFLOW_TRACKING_URI and ORCH_DATABASE_URL name existing services to use instead.

    Example:

      ORCH_HOME=/tmp/trial-run orch up
    """
    settings = Settings.from_env()
    running = local.up(settings, say=lambda line: render.note(f"  {line}"))
    if format is Format.JSON:
        render.print_json(connect(settings).status())
        return ExitCode.OK
    render.say(f"coordinator    {running.coordinator_url}")
    render.say(f"MLflow         {running.mlflow_url}  (answers half a minute after its start)")
    render.say(f"Ray dashboard  {running.ray_dashboard_url}")
    return ExitCode.OK


def down() -> int:
    """End exactly what `orch up` started. Queued and running sweeps stay recorded and go on after the next `orch up`.

    Example:

      orch down
    """
    ended = local.down(Settings.from_env())
    render.say(f"ended: {', '.join(ended)}" if ended else "nothing was running")
    return ExitCode.OK


def status(
    sweep: Annotated[
        str | None, typer.Argument(metavar="[SWEEP]", help="Why this sweep and its trials are where they are.")
    ] = None,
    format: FormatOption = Format.TABLE,
) -> int:
    """Addresses, the cluster's size, and how many sweeps are where; of a sweep, why it waits or was stopped.

    Examples:

      orch status

      orch status quickstart
    """
    if sweep is not None:
        found = connect().sweep(sweep)
        render.print_json(found) if format is Format.JSON else render.out.print(render.reasons(found))
        return ExitCode.OK
    document = connect().status()
    if format is Format.JSON:
        render.print_json(document)
        return ExitCode.OK
    capacity = document.capacity
    cluster = (
        f"{capacity['free_cpus']:g} of {capacity['cpus']:g} CPUs and {capacity['free_gpus']:g} of "
        f"{capacity['gpus']:g} GPUs free on {capacity['nodes']:g} nodes"
        if capacity
        else "does not answer"
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in (
        ("coordinator", document.coordinator_url),
        ("MLflow", document.mlflow_url or "none"),
        ("Ray dashboard", document.ray_dashboard_url or "none"),
        ("version", document.version),
        ("cluster", cluster),
        ("sweeps", render.counts(document.sweeps)),
        ("not yet tracked", str(document.tracking_backlog)),
    ):
        table.add_row(name, value)
    render.out.print(table)
    return ExitCode.OK


def doctor(format: Annotated[Format, typer.Option("--format", "-f", help="table or json.")] = Format.TABLE) -> int:
    """Check what orch needs on this machine, and say how to mend what is missing.

    Example:

      orch doctor
    """
    found = checks.examine(Settings.from_env())
    if format is Format.JSON:
        render.print_json(found)
    else:
        for each in found:
            mark = "[green]ok  [/]" if each.ok else "[red]FAIL[/]"
            render.say(f"{mark} {each.name}: {each.finding}")
            if not each.ok:
                render.say(f"     {each.mend}")
    return ExitCode.OK if all(each.ok for each in found) else ExitCode.WORK_FAILED
