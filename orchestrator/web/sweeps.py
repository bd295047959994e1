"""Routes on sweeps: submit, check, list, show, events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query
from pydantic import BaseModel, Field

from orchestrator import packages, report
from orchestrator.access import digest
from orchestrator.forecast import History, forecast
from orchestrator.lifecycle import SweepState
from orchestrator.records import Once, Sweep, Trial
from orchestrator.spec.load import read_document
from orchestrator.submit import check, plan_document, submit, with_identities
from orchestrator.tokens import Doorkeeper
from orchestrator.web.auth import Admin, Submitter, Viewer
from orchestrator.web.errors import answers
from orchestrator.web.service import Service

BIGGEST_ID = 2**63 - 1
After = Annotated[int, Query(ge=0, le=BIGGEST_ID, description="Those after this number.")]
Reference = Annotated[
    str, Path(min_length=1, max_length=100, examples=["quickstart"], description="A sweep's number or name.")
]
Project = Annotated[str | None, Query(max_length=100, description="Only this project.")]


class SweepFile(BaseModel):
    """A sweep file on its way in. file: the name that messages use."""

    text: str = Field(max_length=1_000_000, examples=["name: quickstart\nparameters: {training.lr: [1e-3, 1e-2]}\n"])
    file: str = Field("sweep.yaml", max_length=1000)
    user: str = Field(
        "anonymous", max_length=100, description="Heeded with an admin's token; others act as themselves."
    )


class Question(SweepFile):
    """A sweep file that is to be looked at."""

    forecast: bool = Field(False, strict=True, description="Tell also what it would cost.")


class Submission(SweepFile):
    """A sweep file that is to be queued."""

    rerun: bool = Field(False, strict=True, description="Train also what an earlier sweep has a result of.")


def routes(service: Service, _: Doorkeeper) -> APIRouter:
    """The router."""
    router = APIRouter(tags=["sweeps"])
    sweeps, trials, outbox = service.sweeps, service.trials, service.outbox

    def document_of(sweep: Sweep, rows: Sequence[Trial]) -> report.SweepDocument:
        # The tracker is told of starts and of shared results: what has neither need not ask how much waits for it
        told = sweep.attempt or any(trial.shared_from is not None for trial in rows)
        first_events = sweeps.events(sweep_id=sweep.id, limit=1) if sweep.spec.get("hypothesis") else []
        return report.sweep_document(sweep, rows, outbox.size(sweep.id) if told else 0, first_events)

    @router.post("/sweeps", status_code=201, responses=answers(400, 409, 413, 422))
    def submit_sweep(
        body: Submission,
        who: Submitter,
        idempotency_key: Annotated[
            str | None,
            Header(
                max_length=200,
                pattern=r"^[!-~]*$",
                description="The same key again gives the sweep that it made, and makes no other.",
            ),
        ] = None,
    ) -> report.SweepDocument:
        """Check a sweep file and queue it."""
        once = None
        if idempotency_key is not None:
            content = digest(f"{body.rerun}\0{body.text}")
            once = Once(key=digest(f"{who.name}\0{idempotency_key}"), content=content)
        recorded = submit(
            body.text,
            body.file,
            user=who.acting_for(body.user),
            store=sweeps,
            trials=trials,
            launcher=service.launcher,
            clock=service.clock,
            sizer=service.sizer,
            rerun=body.rerun,
            once=once,
            allow=who.scope,
            project=who.project,
            has_package=lambda name: packages.has(name, service.storage),
        )
        return document_of(recorded.sweep, recorded.trials)

    @router.post("/check", responses=answers(400, 413, 422))
    def check_sweep(body: Question, who: Viewer) -> report.PlanDocument:
        """Check a sweep file; nothing is queued."""
        accepted = check(read_document(body.text, body.file), service.capacity(), service.sizer)
        who.scope(accepted.spec.project)
        # What starts from another's checkpoint has no result yet
        planned = accepted.plan.trials if accepted.spec.start_from is None else ()
        shared = with_identities(planned, trials, service.sizer, accepted.spec.project)[1]
        told = None
        if body.forecast and service.sizer is not None:
            history = History(sweeps, trials, service.board, who.project)
            told = forecast(accepted.spec, accepted.plan, service.sizer, history)
        return plan_document(accepted, shared, told)

    @router.get("/sweeps", responses=answers(422))
    def list_sweeps(
        who: Viewer,
        project: Project = None,
        state: Annotated[list[SweepState] | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    ) -> report.SweepList:
        """Newest first."""
        found = sweeps.sweeps(project=who.scope(project), states=state or (), limit=limit)
        counts = sweeps.trial_counts([sweep.id for sweep in found])
        return report.SweepList(sweeps=[report.sweep_summary(sweep, counts.get(sweep.id, {})) for sweep in found])

    @router.get("/sweeps/{reference}", responses=answers(404, 422))
    def show_sweep(reference: Reference, who: Viewer) -> report.SweepDocument:
        """One sweep, by number or name, with its trials."""
        sweep = service.sweep_of(who, reference)
        return document_of(sweep, trials.trials(sweep.id))

    @router.get("/sweeps/{reference}/events", responses=answers(404, 422))
    def list_events(reference: Reference, who: Viewer, after: After = 0) -> list[report.EventDocument]:
        """The audit log of one sweep, oldest first."""
        sweep = service.sweep_of(who, reference)
        return [report.event_document(event) for event in sweeps.events(sweep_id=sweep.id, after=after)]

    @router.get("/events", responses=answers(422))
    def list_events_of_no_sweep(_: Admin, after: After = 0) -> list[report.EventDocument]:
        """The audit log of tokens and nodes, oldest first."""
        return [report.event_document(event) for event in sweeps.events_of_no_sweep(after=after)]

    return router
