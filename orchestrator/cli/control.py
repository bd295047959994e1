"""Commands that change what lives: cancel, pause, resume, retry, set-priority, scale, drain; and events, what was done.

Those on sweeps take one trial as well, where that makes sense.
"""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator import report
from orchestrator.cli import render
from orchestrator.cli.command import add
from orchestrator.cli.connect import connect, user_name
from orchestrator.cli.sweeps import Format, FormatOption, SweepArgument, trial_number
from orchestrator.errors import ExitCode
from orchestrator.lifecycle import SWEEP_ENDS, TrialState

Reference = Annotated[
    str, typer.Argument(metavar="SWEEP|TRIAL", help="Number or name of a sweep, or t and a trial's number (t17).")
]


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    add(app, cancel)
    add(app, pause)
    add(app, resume)
    add(app, retry)
    add(app, set_priority, "set-priority")
    add(app, scale)
    add(app, events)
    add(app, nodes)
    add(app, drain)


def cancel(reference: Reference, format: FormatOption = Format.TABLE) -> int:
    """End a sweep, or one trial of it. Trials that finished keep their results; twice is the same as once.

    Examples:

      orch cancel quickstart

      orch cancel t17
    """
    if (trial_id := trial_number(reference)) is not None:
        return _change_trial(trial_id, "cancel", format)
    return _answer(connect().cancel(reference, user_name()), "will be cancelled", format)


def pause(reference: Reference, format: FormatOption = Format.TABLE) -> int:
    """Stop a sweep, or one trial, at the last checkpoint and keep it out of the queue. Twice is the same as once.

    Examples:

      orch pause quickstart

      orch pause t17
    """
    if (trial_id := trial_number(reference)) is not None:
        return _change_trial(trial_id, "pause", format)
    return _answer(connect().change(reference, "pause", user_name()), "will be paused", format)


def resume(reference: Reference, format: FormatOption = Format.TABLE) -> int:
    """Put a paused sweep, or one paused trial, back into the queue; trials go on from their checkpoints.

    Examples:

      orch resume quickstart

      orch resume t17
    """
    if (trial_id := trial_number(reference)) is not None:
        return _change_trial(trial_id, "resume", format)
    return _answer(connect().change(reference, "resume", user_name()), "will go on", format)


def retry(reference: Reference, format: FormatOption = Format.TABLE) -> int:
    """Run a sweep's failed and cancelled trials again, or one of them. Trials with a result keep it.

    Examples:

      orch retry quickstart

      orch retry t17
    """
    if (trial_id := trial_number(reference)) is not None:
        return _change_trial(trial_id, "retry", format)
    summary = connect().change(reference, "retry", user_name())
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


def events(
    sweep: Annotated[
        str | None,
        typer.Argument(metavar="[SWEEP]", help="Number or name; without one: tokens and nodes."),
    ] = None,
    format: FormatOption = Format.TABLE,
) -> int:
    """Print what was done with a sweep and its trials, or with tokens and nodes: when, by whom, and why.

    Examples:

      orch events quickstart

      orch events
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


def nodes(format: FormatOption = Format.TABLE) -> int:
    """List the nodes of the cluster: what they have, their labels, and which are drained.

    Example:

      orch nodes
    """
    found = connect().nodes()
    render.print_json(found) if format is Format.JSON else render.out.print(render.nodes(found.root))
    return ExitCode.OK


def drain(
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node's name, address, id, or the beginning of that.")],
    undo: Annotated[bool, typer.Option("--undo", help="Let it be used again.")] = False,
    format: FormatOption = Format.TABLE,
) -> int:
    """Have trials leave a node at their next reports, to go on elsewhere, and start none there.

    Examples:

      orch drain gpu-node-3

      orch drain gpu-node-3 --undo
    """
    found = connect().drain(node, user_name(), undo=undo)
    if format is Format.JSON:
        render.print_json(found)
    else:
        now = "is drained: its trials go on elsewhere from their next reports" if found.drained else "is used again"
        render.say(f"node {found.name} ({found.node_id[:12]}) {now}")
    return ExitCode.OK


WILL = {
    "cancel": "will be cancelled at its next report",
    "pause": "will be paused at its next report",
    "resume": "goes on",
    "retry": "stays as it is",
}


def _change_trial(trial_id: int, what: str, format: Format) -> int:
    found = connect().change_trial(trial_id, what, user_name())
    if format is Format.JSON:
        render.print_json(found)
    elif found.state is TrialState.RUNNING:
        render.say(f"trial {trial_id} {WILL[what]}; follow it: orch logs t{trial_id} -f")
    else:
        render.say(f"trial {trial_id} is {found.state}")
    return ExitCode.OK


def _answer(summary: report.SweepSummary, now: str, format: Format) -> int:
    if format is Format.JSON:
        render.print_json(summary)
    elif summary.state in SWEEP_ENDS:
        render.say(f"sweep {summary.sweep_id} ({summary.name}) has ended already: {summary.state}")
    else:
        render.say(f"sweep {summary.sweep_id} ({summary.name}) {now}; follow it: orch watch {summary.sweep_id}")
    return ExitCode.OK
