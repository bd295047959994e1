"""Routes that train further what has been trained: extend and fork."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from orchestrator import lineage, report
from orchestrator.records import Sweep
from orchestrator.tokens import Doorkeeper
from orchestrator.web.auth import Submitter
from orchestrator.web.control import User
from orchestrator.web.errors import answers
from orchestrator.web.results import TrialId
from orchestrator.web.service import Service

MOST_STEPS = 10**12


class Horizon(BaseModel):
    """How far trials are to go."""

    steps: int = Field(ge=1, le=MOST_STEPS, description="Optimiser steps in all.")


class Children(BaseModel):
    """What starts from a checkpoint."""

    step: int | None = Field(None, ge=0, le=MOST_STEPS, description="Step of the checkpoint; the newest when left out.")
    set: list[Annotated[str, Field(max_length=10_000)]] = Field(
        default_factory=list, max_length=100, description="`key=value` by which the children differ from the parent."
    )
    seeds: int = Field(1, ge=1, le=1000, description="Children of each configuration; the first has the parent's seed.")


def routes(service: Service, _: Doorkeeper) -> APIRouter:
    """The router."""
    router = APIRouter(tags=["lineage"], responses=answers(400, 404, 413, 422))
    means = lineage.Means(service.sweeps, service.trials, service.clock, service.sizer)

    def document(sweep: Sweep) -> report.SweepDocument:
        return report.sweep_document(sweep, service.trials.trials(sweep.id), service.outbox.size(sweep.id))

    @router.post("/sweeps/{reference}/extend", status_code=201)
    def extend_sweep(reference: str, body: Horizon, who: Submitter, user: User = "anonymous") -> report.SweepDocument:
        """Train a sweep's trials further, in a sweep of their own."""
        sweep = service.sweep_of(who, reference)
        return document(lineage.extend(str(sweep.id), body.steps, user=who.acting_for(user), means=means))

    @router.post("/trials/{trial_id}/extend", status_code=201)
    def extend_trial(
        trial_id: TrialId, body: Horizon, who: Submitter, user: User = "anonymous"
    ) -> report.SweepDocument:
        """Train one trial further, in a sweep of its own."""
        trial = service.trial_of(who, trial_id)
        return document(lineage.extend(f"t{trial.id}", body.steps, user=who.acting_for(user), means=means))

    @router.post("/trials/{trial_id}/fork", status_code=201)
    def fork_trial(trial_id: TrialId, body: Children, who: Submitter, user: User = "anonymous") -> report.SweepDocument:
        """Start children from a trial's checkpoint."""
        trial = service.trial_of(who, trial_id)
        return document(lineage.fork(trial.id, body.step, body.set, body.seeds, user=who.acting_for(user), means=means))

    return router
