"""Commands that change a sweep while it lives: pause, resume, retry, set-priority, scale; and events, what was done."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator import report
from orchestrator.cli import render
from orchestrator.cli.command import add
from orchestrator.cli.connect import connect, user_name
from orchestrator.cli.sweeps import Format, FormatOption, SweepArgument
from orchestrator.errors import ExitCode
from orchestrator.lifecycle import SWEEP_ENDS


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    add(app, pause)
    add(app, resume)
    add(app, retry)
    add(app, set_priority, "set-priority")
    add(app, scale)
    add(app, events)


def pause(sweep: SweepArgument, format: FormatOption = Format.TABLE) -> int:
    """Stop a sweep at its trials' last checkpoints and keep it out of the queue. Pausing twice is the same as once.

    Example:

      orch pause quickstart
    """
    return _answer(connect().change(sweep, "pause", user_name()), "will be paused", format)


def resume(sweep: SweepArgument, format: FormatOption = Format.TABLE) -> int:
    """Put a paused sweep back into the queue; its trials go on from their checkpoints.

    Example:

      orch resume quickstart
    """
    return _answer(connect().change(sweep, "resume", user_name()), "will go on", format)


def retry(sweep: SweepArgument, format: FormatOption = Format.TABLE) -> int:
    """Run a sweep's failed and cancelled trials again. Trials with a result keep it.

    Example:

      orch retry quickstart
    """
    summary = connect().change(sweep, "retry", user_name())
    if summary.state in SWEEP_ENDS and format is Format.TABLE:
        render.say(f"sweep {summary.sweep_id} ({summary.name}) has no failed or cancelled trial: nothing to retry")
        return ExitCode.OK
    return _answer(summary, "runs its failed and cancelled trials again", format)


def set_priority(
    sweep: SweepArgument,
    priority: Annotated[int, typer.Argument(min=0, max=100, help="The higher, the sooner; 50 where a file says none.")],
    format: FormatOption = Format.TABLE,
) -> int:
    """Change a sweep's priority. Sweeps of lower priority give way at their checkpoints.

    Example:

      orch set-priority quickstart 80
    """
    summary = connect().change(sweep, "priority", user_name(), priority=priority)
    return _answer(summary, f"has priority {summary.priority}", format)


def scale(
    sweep: SweepArgument,
    slots: Annotated[int, typer.Argument(min=1, max=1_000_000, help="Trials at once, at most.")],
    format: FormatOption = Format.TABLE,
) -> int:
    """Change how many trials a sweep may run at once. Trials that run beyond it end first.

    Example:

      orch scale quickstart 4
    """
    summary = connect().change(sweep, "slots", user_name(), slots=slots)
    return _answer(summary, f"runs at most {slots} trials at once", format)


def events(sweep: SweepArgument, format: FormatOption = Format.TABLE) -> int:
    """Print what was done with a sweep and its trials: when, by whom, and why.

    Example:

      orch events quickstart
    """
    client, after = connect(), 0
    found: list[report.EventDocument] = []
    while page := client.events(sweep, after).root:
        found += page
        after = page[-1].event_id
    if format is Format.JSON:
        render.print_json(found)
    else:
        render.out.print(render.events(found))
    return ExitCode.OK


def _answer(summary: report.SweepSummary, now: str, format: Format) -> int:
    if format is Format.JSON:
        render.print_json(summary)
    elif summary.state in SWEEP_ENDS:
        render.say(f"sweep {summary.sweep_id} ({summary.name}) has ended already: {summary.state}")
    else:
        render.say(f"sweep {summary.sweep_id} ({summary.name}) {now}; follow it: orch watch {summary.sweep_id}")
    return ExitCode.OK
