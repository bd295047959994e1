"""Command that tries scheduling policies on a trace: simulate."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from orchestrator.cli import render
from orchestrator.cli.command import add
from orchestrator.cli.sweeps import Format, FormatOption
from orchestrator.errors import BadInput, ExitCode
from orchestrator.report import PolicyDocument, SimulationDocument
from orchestrator.simulate import PolicyName, compare
from orchestrator.traces import read_trace


def register(app: typer.Typer) -> None:
    """Add this command to `app`."""
    add(app, simulate)


def simulate(
    trace: Annotated[Path, typer.Option("--trace", metavar="FILE", help="Sweeps that arrive, or their recipe.")],
    gpus: Annotated[int, typer.Option("--gpus", min=1, max=1_000_000, help="Size of the pool.")],
    tick: Annotated[float, typer.Option("--tick", min=1, help="Shortest seconds between two decisions.")] = 120.0,
    policy: Annotated[PolicyName | None, typer.Option("--policy", help="One alone; all three when left out.")] = None,
    format: FormatOption = Format.TABLE,
) -> int:
    """Compare first-come-first-served, priority alone and orch's own policy on a trace, by events and not in real time.

    Example:

      orch simulate --trace sweeps/traces/lab.yaml --gpus 1000
    """
    arrivals = read_trace(trace)
    widest = max(arrival.gpus for arrival in arrivals)
    if widest > gpus:
        raise BadInput(f"{trace}: a trial asks for {widest:g} GPUs, and the pool has {gpus}; give --gpus {widest:g}.")
    # As in the coordinator: a collection in the midst of a decision is not to walk the program and the trace
    gc.collect()
    gc.freeze()
    policies = compare(arrivals, gpus, names=[policy] if policy else PolicyName, tick_s=tick)
    document = SimulationDocument(trace=str(trace), sweeps=len(arrivals), gpus=gpus, policies=policies)
    if format is Format.JSON:
        render.print_json(document)
    else:
        render.out.print(_table(document))
    return ExitCode.OK


def _table(document: SimulationDocument) -> Table:
    table = Table(
        box=None,
        pad_edge=False,
        title=f"{document.sweeps:,} sweeps of {document.trace} on {document.gpus:,} GPUs",
        title_justify="left",
    )
    table.add_column("")
    for outcome in document.policies:
        table.add_column(outcome.policy, justify="right")
    rows: dict[str, Callable[[PolicyDocument], str]] = {
        "hours until all ended": lambda o: f"{o.hours:.1f}",
        "of a perfect packing": lambda o: f"{o.packing:.1%}",
        "pool in use while somebody waits": lambda o: f"{o.utilisation:.1%}",
        **{
            f"hours of waiting, {size} GPUs: p50 / p95 / longest": partial(_wait, size)
            for size in document.policies[0].waits
        },
        "fairness over projects (Jain)": lambda o: f"{o.fairness:.3f}",
        "drivers stopped for others": lambda o: f"{o.preemptions}",
        "work done twice": lambda o: f"{o.lost:.2%}",
        "a decision, CPU ms: p50 / p95 / longest": lambda o: (
            f"{o.decision_ms[0]:.1f} / {o.decision_ms[1]:.1f} / {o.decision_ms[2]:.1f}"
        ),
        "most sweeps in the queue": lambda o: f"{o.longest_queue:,}",
    }
    for name, told in rows.items():
        table.add_row(name, *(told(outcome) for outcome in document.policies))
    return table


def _wait(size: str, outcome: PolicyDocument) -> str:
    wait = outcome.waits[size]
    return f"{wait.p50_h:.2f} / {wait.p95_h:.1f} / {wait.longest_h:.1f}"
