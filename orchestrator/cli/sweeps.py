"""Commands on sweeps: submit, validate, plan, list, show, watch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import report
from orchestrator.cli import follow, render
from orchestrator.cli.client import Client
from orchestrator.cli.command import add
from orchestrator.cli.connect import connect, user_name
from orchestrator.errors import ExitCode, Unreachable
from orchestrator.lifecycle import SweepState
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from orchestrator.cli import files


class Format(StrEnum):
    """How a listing is printed."""

    TABLE = "table"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", "-f", help="table for people, json for programs.")]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A sweep file.")]
ProfileOption = Annotated[str | None, typer.Option("--profile", help="Lay one of the file's `profiles` over it.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a value of the file; may repeat.")
]
SweepArgument = Annotated[str, typer.Argument(metavar="SWEEP", help="Number or name of a sweep.")]


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    add(app, submit)
    add(app, validate)
    add(app, plan)
    add(app, list_sweeps, "list")
    add(app, show)
    add(app, watch)


def submit(
    file: FileArgument,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Follow it to its end; exit 1 if it fails.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and queue nothing.")] = False,
    rerun: Annotated[bool, typer.Option("--rerun", help="Train also what an earlier sweep has a result of.")] = False,
    profile: ProfileOption = None,
    assignments: SetOption = None,
    format: FormatOption = Format.TABLE,
) -> int:
    """Queue a sweep. Starts the local service if none is running.

    Examples:

      orch submit sweeps/quickstart.yaml

      orch submit sweeps/quickstart.yaml --wait --format json > result.json

      orch submit sweeps/quickstart.yaml --set training.steps=1000 --set seeds=3
    """
    if dry_run:
        return plan(file, profile=profile, assignments=assignments, format=format)
    # Reading a sweep file takes pydantic and YAML, which most commands do without.
    from orchestrator.cli.files import load
    from orchestrator.sizing import SubprocessSizer

    with SubprocessSizer() as sizer:
        loaded = load(file, profile, assignments or [], sizer)
    client = connect(start=True)
    if loaded.package is not None:
        client.bring(loaded.package)
    document = client.submit(loaded.text, str(file), user_name(), rerun=rerun)
    as_json = format is Format.JSON
    say = render.note if as_json else render.say
    shared = sum(trial.shared_from is not None for trial in document.trials)
    known = f", {shared} of them known from earlier sweeps (`--rerun` trains them again)" if shared else ""
    say(f"sweep {document.sweep_id} ({document.name}) is queued: {len(document.trials)} trials{known}")
    if not wait:
        if as_json:
            render.print_json(document)
        else:
            say(f"follow it:  orch watch {document.sweep_id}")
            say(f"compare:    orch leaderboard --sweep {document.sweep_id}")
        return ExitCode.OK
    ended = follow.until_over(client, document.sweep_id, quiet=as_json)
    if as_json:
        render.print_json(ended)
    return ExitCode.OK if ended.state is SweepState.SUCCEEDED else ExitCode.WORK_FAILED


def validate(
    file: FileArgument,
    profile: ProfileOption = None,
    assignments: SetOption = None,
    format: FormatOption = Format.TABLE,
) -> int:
    """Check a sweep file. Needs no running service; asks the cluster's size where one runs.

    Example:

      orch validate sweeps/quickstart.yaml
    """
    document = _checked(file, profile, assignments, costs=False)[0]
    if format is Format.JSON:
        render.print_json(document)
        return ExitCode.OK
    render.say(f"{file}: good. {render.planned(document)}")
    for warning in document.warnings:
        render.say(f"  note: {warning}")
    return ExitCode.OK


def plan(
    file: FileArgument,
    profile: ProfileOption = None,
    assignments: SetOption = None,
    format: FormatOption = Format.TABLE,
) -> int:
    """Show what a sweep file would do: axes, first trials, sizes, hours, warnings, and where merged values came from.

    Hours come from earlier trials of the same shape where the service has recorded some, else from FLOPs over a rate.
    Early stopping is tried on the project's finished trials.

    Examples:

      orch plan sweeps/quickstart.yaml

      orch plan sweeps/quickstart.yaml --set model.d_model=128 --format json
    """
    document, loaded = _checked(file, profile, assignments, costs=True)
    if format is Format.JSON:
        render.print_json(document)
        return ExitCode.OK
    render.out.print(render.plan(document))
    if loaded.text.startswith("# merged from"):
        from orchestrator.cli.files import origins

        render.out.print(render.origins(origins(loaded.document)))
    return ExitCode.OK


def list_sweeps(
    project: Annotated[str | None, typer.Option("--project", "-p", help="Only this project.")] = None,
    state: Annotated[
        list[SweepState] | None, typer.Option("--state", "-s", help="Only this state; may repeat.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, newest first.")] = 50,
    format: FormatOption = Format.TABLE,
) -> int:
    """List sweeps, newest first.

    Example:

      orch list --state running --state queued
    """
    found = connect().sweeps(project, [str(each) for each in state or []], limit)
    if format is Format.JSON:
        render.print_json(found)
    elif found.sweeps:
        render.out.print(render.sweeps(found.sweeps))
    else:
        render.say("no sweeps yet. A first one: orch submit sweeps/quickstart.yaml")
    return ExitCode.OK


def show(
    reference: Annotated[
        str, typer.Argument(metavar="SWEEP|TRIAL", help="Number or name of a sweep, or t and a trial's number (t17).")
    ],
    format: FormatOption = Format.TABLE,
) -> int:
    """Show one sweep with its trials, or one trial.

    Examples:

      orch show quickstart

      orch show t17 --format json
    """
    client = connect()
    trial_id = trial_number(reference)
    if trial_id is not None:
        trial = client.trial(trial_id)
        render.print_json(trial) if format is Format.JSON else render.out.print(render.trial(trial))
        return ExitCode.OK
    sweep = client.sweep(reference)
    render.print_json(sweep) if format is Format.JSON else render.out.print(render.sweep(sweep))
    return ExitCode.OK


def watch(sweep: SweepArgument) -> int:
    """Follow a sweep live until it ends; Ctrl-C stops watching and changes nothing.

    Example:

      orch watch quickstart
    """
    client = connect()
    ended = follow.until_over(client, client.sweep(sweep).sweep_id)
    return ExitCode.OK if ended.state is SweepState.SUCCEEDED else ExitCode.WORK_FAILED


def trial_number(reference: str) -> int | None:
    """The number in `t17`; None for anything else."""
    digits = reference.removeprefix("t")
    return int(digits) if reference.startswith("t") and digits.isdecimal() else None


def _checked(
    file: Path, profile: str | None, assignments: list[str] | None, *, costs: bool
) -> tuple[report.PlanDocument, files.SweepFile]:
    from orchestrator.cli.files import load
    from orchestrator.sizing import SubprocessSizer

    with SubprocessSizer() as sizer:
        loaded = load(file, profile, assignments or [], sizer)
        client = _running_client()
        if client:
            return client.check(loaded.text, str(file), forecast=costs), loaded
        return loaded.plan(sizer if costs else None), loaded


def _running_client() -> Client | None:
    settings = Settings.from_env()
    try:
        return connect(settings)
    except Unreachable:
        if settings.url:
            raise
        return None
