"""Follow a sweep to its end: a live table on a terminal, lines elsewhere. Ctrl-C detaches and cancels nothing."""

from __future__ import annotations

import time

import typer
from rich.live import Live

from orchestrator import report
from orchestrator.cli import render
from orchestrator.cli.client import Client
from orchestrator.errors import Unreachable

POLL_S = 0.5
PATIENCE_S = 60.0
"""How long a coordinator may be away (restarted, say) before following gives up."""
TRACKING_WAIT_S = 90.0
"""How long an ended sweep waits to be seen in the tracker: one that just started needs half a minute."""


def until_over(client: Client, sweep_id: int, *, quiet: bool = False) -> report.SweepDocument:
    """Follow a sweep until it has ended and the tracker knows it.

    Args:
        quiet: nothing goes to standard output.

    Raises:
        typer.Exit: Ctrl-C; the sweep runs on.
        Unreachable: the coordinator was away for a minute.
    """
    try:
        document = _lines(client, sweep_id) if quiet or not render.out.is_terminal else _table(client, sweep_id)
        return _tracked(client, document)
    except KeyboardInterrupt:
        render.note(f"\ndetached; sweep {sweep_id} goes on. Follow it again with: orch watch {sweep_id}")
        raise typer.Exit(130) from None


def _table(client: Client, sweep_id: int) -> report.SweepDocument:
    document = _fetch(client, sweep_id)
    with Live(render.sweep(document), console=render.out, auto_refresh=False) as live:
        while not document.is_over:
            time.sleep(POLL_S)
            document = _fetch(client, sweep_id)
            live.update(render.sweep(document), refresh=True)
    return document


def _lines(client: Client, sweep_id: int) -> report.SweepDocument:
    """What changed, line by line, on standard error."""
    seen: dict[object, object] = {}
    while True:
        document = _fetch(client, sweep_id)
        now: dict[object, object] = {"sweep": (document.state, document.reason)}
        now |= {trial.trial_id: (trial.state, trial.reason) for trial in document.trials}
        for key, value in now.items():
            if seen.get(key) != value and (key in seen or key == "sweep"):
                render.note(_line(key, document))
        seen = now
        if document.is_over:
            return document
        time.sleep(POLL_S)


def _line(key: object, document: report.SweepDocument) -> str:
    if key == "sweep":
        return f"sweep {document.sweep_id}: {document.state}" + (f" ({document.reason})" if document.reason else "")
    trial = next(each for each in document.trials if each.trial_id == key)
    value = trial.metrics.get(document.metric)
    score = f"  {document.metric} {value:.4f} at step {trial.step}" if value is not None else ""
    return f"trial {trial.trial_id}: {trial.state}{score}" + (f" ({trial.reason})" if trial.reason else "")


def _tracked(client: Client, document: report.SweepDocument) -> report.SweepDocument:
    deadline = time.monotonic() + TRACKING_WAIT_S
    if document.tracking_backlog:
        render.note(f"sweep {document.sweep_id} has ended; waiting for the tracker to show it")
    while document.tracking_backlog and time.monotonic() < deadline:
        time.sleep(POLL_S)
        document = _fetch(client, document.sweep_id)
    if document.tracking_backlog:
        render.note("the tracker does not answer yet; what it has not been told is kept and sent later")
    return document


def _fetch(client: Client, sweep_id: int) -> report.SweepDocument:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return client.sweep(str(sweep_id))
        except Unreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)
