"""Commands that train further what has been trained: extend, fork."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from orchestrator import report
from orchestrator.cli import render
from orchestrator.cli.command import add
from orchestrator.cli.connect import connect, user_name
from orchestrator.cli.sweeps import Format, FormatOption, trial_number
from orchestrator.errors import BadInput, ExitCode


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    add(app, extend)
    add(app, fork)


def extend(
    reference: Annotated[
        str, typer.Argument(metavar="SWEEP|TRIAL", help="Number or name of a sweep, or t and a trial's number (t17).")
    ],
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps in all.")],
    format: FormatOption = Format.TABLE,
) -> int:
    """Train on from the last checkpoints, to more steps. Makes a sweep of its own; what is recorded stays.

    With a constant learning rate the result is that of a run that was that long from the start, bit for bit. With a
    schedule that looks at the horizon (cosine, trapezoid, a router that anneals) the steps to come follow the longer
    one, and those behind were trained on the shorter.

    Examples:

      orch extend quickstart --steps 1000

      orch extend t17 --steps 1000
    """
    trial_id = trial_number(reference)
    return _told(connect().extend(reference, trial_id, steps, user_name()), format)


def fork(
    checkpoint: Annotated[
        str, typer.Argument(metavar="TRIAL@STEP", help="A checkpoint: t17@200; the newest without @STEP.")
    ],
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="How the children differ; a list makes a child of each value."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=1000, help="Children of each configuration.")] = 1,
    format: FormatOption = Format.TABLE,
) -> int:
    """Start children from one checkpoint: model, optimiser, generators and place in the data are the parent's.

    The first seed is the parent's own: its data go on in the parent's order.

    Examples:

      orch fork t17@200 --set router.z_weight=1e-3 --seeds 3

      orch fork t17@200 --set training.lr=[1e-3,1e-4] --set training.steps=1000
    """
    trial_id, step = checkpoint_word(checkpoint)
    found = connect().fork(trial_id, step, assignments or [], seeds, user_name())
    return _told(found, format)


def checkpoint_word(text: str) -> tuple[int, int | None]:
    """Trial and step of `t17@200`; without @ the newest checkpoint is meant.

    Raises:
        BadInput: it has another form.
    """
    match = re.fullmatch(r"t?(\d{1,18})(?:@(\d{1,18}))?", text)
    if match is None:
        raise BadInput(f"{text!r} names no checkpoint; write TRIAL@STEP, as in t17@200.")
    return int(match[1]), int(match[2]) if match[2] else None


def _told(document: report.SweepDocument, format: Format) -> int:
    if format is Format.JSON:
        render.print_json(document)
        return ExitCode.OK
    render.say(f"sweep {document.sweep_id} ({document.name}) is queued: {len(document.trials)} trials")
    for trial in document.trials[:12]:
        render.say(f"  t{trial.trial_id} seed {trial.seed} starts from {render.lineage(trial)}")
    render.say(f"follow it:  orch watch {document.sweep_id}")
    return ExitCode.OK
