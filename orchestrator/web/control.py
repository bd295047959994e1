"""Routes that change a sweep while it lives."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from orchestrator import control, report
from orchestrator.access import Principal
from orchestrator.records import Sweep
from orchestrator.tokens import Doorkeeper
from orchestrator.web.auth import Submitter
from orchestrator.web.errors import answers
from orchestrator.web.results import TrialId
from orchestrator.web.service import Service
from orchestrator.web.sweeps import Reference

User = Annotated[str, Query(max_length=100, description="Heeded with an admin's token; others act as themselves.")]


class Priority(BaseModel):
    """A sweep's new priority."""

    priority: int = Field(ge=0, le=100, strict=True)


class Slots(BaseModel):
    """How many trials a sweep may run at once from now on."""

    slots: int = Field(ge=1, le=1_000_000, strict=True)


def routes(service: Service, _: Doorkeeper) -> APIRouter:
    """The router."""
    router = APIRouter(prefix="/sweeps/{reference}", tags=["control"], responses=answers(404, 409, 422))
    sweeps, clock = service.sweeps, service.clock
    bodies = answers(400, 413)

    def number(who: Principal, reference: str) -> str:
        return str(service.sweep_of(who, reference).id)

    def summary(sweep: Sweep) -> report.SweepSummary:
        return report.sweep_summary(sweep, sweeps.trial_counts([sweep.id]).get(sweep.id, {}))

    @router.post("/cancel", status_code=202)
    def cancel_sweep(reference: Reference, who: Submitter, user: User = "anonymous") -> report.SweepSummary:
        """Ask for a sweep's end; finished trials keep their results."""
        user = who.acting_for(user)
        return summary(control.cancel(number(who, reference), user=user, store=sweeps, clock=clock))

    @router.post("/pause", status_code=202)
    def pause_sweep(reference: Reference, who: Submitter, user: User = "anonymous") -> report.SweepSummary:
        """Ask for a sweep to stop at its trials' last checkpoints and to wait."""
        user = who.acting_for(user)
        return summary(control.pause(number(who, reference), user=user, store=sweeps, clock=clock))

    @router.post("/resume", status_code=202)
    def resume_sweep(reference: Reference, who: Submitter, user: User = "anonymous") -> report.SweepSummary:
        """Ask for a paused sweep to go on."""
        user = who.acting_for(user)
        return summary(
            control.resume(number(who, reference), user=user, store=sweeps, trials=service.trials, clock=clock)
        )

    @router.post("/retry", status_code=202)
    def retry_sweep(reference: Reference, who: Submitter, user: User = "anonymous") -> report.SweepSummary:
        """Run failed and cancelled trials again."""
        user = who.acting_for(user)
        return summary(control.retry(number(who, reference), user=user, store=sweeps, clock=clock))

    @router.post("/priority", responses=bodies)
    def set_priority(
        reference: Reference, body: Priority, who: Submitter, user: User = "anonymous"
    ) -> report.SweepSummary:
        """Change a sweep's priority."""
        user = who.acting_for(user)
        return summary(
            control.set_priority(number(who, reference), body.priority, user=user, store=sweeps, clock=clock)
        )

    @router.post("/slots", responses=bodies)
    def scale_sweep(reference: Reference, body: Slots, who: Submitter, user: User = "anonymous") -> report.SweepSummary:
        """Change how many trials a sweep may run at once."""
        user = who.acting_for(user)
        return summary(control.scale(number(who, reference), body.slots, user=user, store=sweeps, clock=clock))

    return router


def trial_routes(service: Service, _: Doorkeeper) -> APIRouter:
    """The router of single trials."""
    router = APIRouter(prefix="/trials/{trial_id}", tags=["control"], responses=answers(404, 409, 422))
    trials, clock = service.trials, service.clock

    def number(who: Principal, trial_id: int) -> int:
        return service.trial_of(who, trial_id).id

    @router.post("/cancel", status_code=202)
    def cancel_trial(trial_id: TrialId, who: Submitter, user: User = "anonymous") -> report.TrialDocument:
        """Ask for one trial's end; the rest of its sweep goes on."""
        user = who.acting_for(user)
        found = control.cancel_trial(number(who, trial_id), user=user, trials=trials, clock=clock)
        return report.trial_document(found)

    @router.post("/pause", status_code=202)
    def pause_trial(trial_id: TrialId, who: Submitter, user: User = "anonymous") -> report.TrialDocument:
        """Ask for one trial to stop at its next report and to stay out of the queue."""
        user = who.acting_for(user)
        found = control.pause_trial(number(who, trial_id), user=user, trials=trials, clock=clock)
        return report.trial_document(found)

    @router.post("/resume", status_code=202)
    def resume_trial(trial_id: TrialId, who: Submitter, user: User = "anonymous") -> report.TrialDocument:
        """Let a paused trial wait for a slot again."""
        user = who.acting_for(user)
        found = control.resume_trial(number(who, trial_id), user=user, trials=trials, clock=clock)
        return report.trial_document(found)

    @router.post("/retry", status_code=202)
    def retry_trial(trial_id: TrialId, who: Submitter, user: User = "anonymous") -> report.TrialDocument:
        """Run one failed or cancelled trial again."""
        user = who.acting_for(user)
        found = control.retry_trial(number(who, trial_id), user=user, sweeps=service.sweeps, trials=trials, clock=clock)
        return report.trial_document(found)

    return router
