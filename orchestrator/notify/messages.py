"""What webhooks are told: Slack's `text`, and the same in fields for programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from orchestrator.lifecycle import SWEEP_ENDS, SweepState, TrialState
from orchestrator.records import Event, Sweep, Trial

Kind = Literal["end", "failure", "best"]


def kinds_of(event: Event) -> Sequence[Kind]:
    """What an event of the audit log may be news of."""
    state = event.what.rpartition(" -> ")[2] if " -> " in event.what else ""
    if event.trial_id is None:
        if state not in SWEEP_ENDS:
            return ()
        return ("failure", "end") if state == SweepState.FAILED else ("end",)
    if state == TrialState.FAILED:
        return ("failure",)
    return ("best",) if state in (TrialState.SUCCEEDED, TrialState.STOPPED) else ()


def sweep_message(kind: Kind, sweep: Sweep, event: Event) -> dict[str, Any]:
    """A sweep has ended."""
    state = event.what.rpartition(" -> ")[2]
    why = f": {event.reason}" if event.reason else ""
    return _message(kind, f"Sweep {sweep.id} ({sweep.name}, project {sweep.project}) {state}{why}", sweep, event) | {
        "state": state
    }


def failure_message(sweep: Sweep, trial: Trial, event: Event) -> dict[str, Any]:
    """A trial has failed for good."""
    text = f"Trial {trial.id} of sweep {sweep.id} ({sweep.name}) failed: {event.reason}"
    return _message("failure", text, sweep, event) | {"trial_id": trial.id, "params": dict(trial.params)}


def best_message(sweep: Sweep, trial: Trial, event: Event) -> dict[str, Any]:
    """A trial ended with a better score than all before it in its sweep."""
    text = f"New best of sweep {sweep.id} ({sweep.name}): {sweep.metric} {trial.score:.6g} by trial {trial.id}"
    told = ", ".join(f"{name} = {value}" for name, value in trial.params.items())
    return _message("best", f"{text} ({told})" if told else text, sweep, event) | {
        "trial_id": trial.id,
        "params": dict(trial.params),
        "metric": sweep.metric,
        "value": trial.score,
    }


def _message(kind: Kind, text: str, sweep: Sweep, event: Event) -> dict[str, Any]:
    return {
        "text": text[:3000],
        "kind": kind,
        "sweep_id": sweep.id,
        "sweep": sweep.name,
        "project": sweep.project,
        "user": sweep.user,
        "reason": event.reason,
        "at": event.at.isoformat(),
        "event_id": event.id,
    }
