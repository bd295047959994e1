"""Sweeps that must come first: `depends_on`, and the sweep that `start_from` names.

A sweep can name only sweeps that are there when it is submitted, so none can wait for itself in a circle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import BadInput, Complaint, NotFound
from orchestrator.lifecycle import SweepState
from orchestrator.ports import SweepStore
from orchestrator.records import Sweep
from orchestrator.spec import SweepSpec
from orchestrator.spec.document import Document, Path
from orchestrator.spec.operations import best_of

LOST = (SweepState.FAILED, SweepState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a sweep may not start. hopeless: what it waits for will not come."""

    reason: str
    hopeless: bool


def by_number(spec: SweepSpec, document: Document, store: SweepStore, *, project: str | None = None) -> dict[str, Any]:
    """`depends_on` and `start_from` with numbers in place of names.

    The sweep to start from is one to wait for, too.

    Args:
        project: to which the submitter is bound; None for any.

    Raises:
        BadInput: a sweep is not there, or has failed or was cancelled.
    """
    named: list[tuple[Path, str]] = [(("depends_on", i), name) for i, name in enumerate(spec.depends_on)]
    if spec.start_from is not None:
        named.append((("start_from",), best_of(spec.start_from)))
    found: list[int] = []
    complaints: list[Complaint] = []
    for place, name in named:
        try:
            sweep = store.find_sweep(name, project=project)
        except NotFound as error:
            message, _, hint = str(error).partition("; ")
            complaints.append(document.complaint(place, f"{message}.", hint))
            continue
        if sweep.state in LOST:
            hint = f"`orch retry {sweep.id}` first."
            complaints.append(document.complaint(place, f"sweep {sweep.id} ({sweep.name}) is {sweep.state}.", hint))
        found.append(sweep.id)
    if complaints:
        raise BadInput(complaints)
    words: dict[str, Any] = {"depends_on": [str(sweep_id) for sweep_id in dict.fromkeys(found)]}
    if spec.start_from is not None:
        words["start_from"] = f"best of {found[-1]}"
    return words


def waiting(sweeps: Sequence[Sweep], store: SweepStore) -> dict[int, Waiting]:
    """Those of the queue that may not start yet, and why. What has started once need not wait again."""
    queued = [each for each in sweeps if each.state is SweepState.QUEUED and not each.attempt and each.depends_on]
    if not queued:
        return {}
    known = {sweep.id: sweep for sweep in sweeps}
    ended = {sweep_id for sweep in queued for sweep_id in sweep.depends_on} - known.keys()
    known |= {sweep.id: sweep for sweep in store.some_sweeps(sorted(ended))}
    found = {sweep.id: _waits(sweep, known) for sweep in queued}
    return {sweep_id: why for sweep_id, why in found.items() if why is not None}


def _waits(sweep: Sweep, known: Mapping[int, Sweep]) -> Waiting | None:
    for sweep_id in sweep.depends_on:
        other = known.get(sweep_id)
        if other is None:
            return Waiting(f"sweep {sweep_id}, on which it depends, is no more", hopeless=True)
        if other.state in LOST:
            return Waiting(f"sweep {other.id} ({other.name}), on which it depends, is {other.state}", hopeless=True)
    open_ones = [known[i] for i in sweep.depends_on if known[i].state is not SweepState.SUCCEEDED]
    if not open_ones:
        return None
    told = ", ".join(f"{each.id} ({each.name}), which is {each.state}" for each in open_ones)
    return Waiting(f"waits for sweep {told}", hopeless=False)
