"""JSON routes: parse, call one use case, answer."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from orchestrator import board, control, report
from orchestrator.errors import BadInput, ExitCode, NotFound, OrchError, Unreachable
from orchestrator.lifecycle import SweepState
from orchestrator.records import Capacity, Sweep
from orchestrator.spec.load import read_document
from orchestrator.submit import check, plan_document, submit
from orchestrator.web.auth import bearer
from orchestrator.web.service import Service

LOG_PAGE_BYTES = 256_000


class SweepFile(BaseModel):
    """A sweep file on its way in. file: the name that messages use."""

    text: str = Field(max_length=1_000_000)
    file: str = Field("sweep.yaml", max_length=1000)
    user: str = Field("anonymous", max_length=100)


class Priority(BaseModel):
    """A sweep's new priority."""

    priority: int = Field(ge=0, le=100)


class Slots(BaseModel):
    """How many trials a sweep may run at once from now on."""

    slots: int = Field(ge=1, le=1_000_000)


def create_api(service: Service, token: str) -> FastAPI:
    """The API of one coordinator."""
    api = FastAPI(title="orch", version=service.version, docs_url="/api/docs", openapi_url="/api/openapi.json")
    api.include_router(_open_routes(service))
    api.include_router(_sweep_routes(service), prefix="/api/v1", dependencies=[Depends(bearer(token))])
    api.include_router(_control_routes(service), prefix="/api/v1", dependencies=[Depends(bearer(token))])
    api.include_router(_read_routes(service), prefix="/api/v1", dependencies=[Depends(bearer(token))])
    api.add_exception_handler(OrchError, _on_error)
    return api


def _open_routes(service: Service) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz")
    def health() -> dict[str, str]:
        """Alive, and which orch this is. Needs no token."""
        return {"status": "ok", "version": service.version, "instance": service.instance}

    return routes


def _sweep_routes(service: Service) -> APIRouter:
    routes = APIRouter(tags=["sweeps"])
    sweeps, trials, outbox = service.sweeps, service.trials, service.outbox

    @routes.post("/sweeps", status_code=201)
    def submit_sweep(body: SweepFile) -> report.SweepDocument:
        """Check a sweep file and queue it."""
        sweep = submit(
            body.text,
            body.file,
            user=body.user,
            store=sweeps,
            launcher=service.launcher,
            clock=service.clock,
            sizer=service.sizer,
        )
        return report.sweep_document(sweep, trials.trials(sweep.id), outbox.size(sweep.id))

    @routes.post("/check")
    def check_sweep(body: SweepFile) -> report.PlanDocument:
        """Check a sweep file; nothing is queued."""
        return plan_document(check(read_document(body.text, body.file), _capacity(service), service.sizer))

    @routes.get("/sweeps")
    def list_sweeps(
        project: str | None = None,
        state: Annotated[list[SweepState] | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    ) -> report.SweepList:
        """Newest first."""
        found = sweeps.sweeps(project=project, states=state or (), limit=limit)
        counts = sweeps.trial_counts([sweep.id for sweep in found])
        return report.SweepList(sweeps=[report.sweep_summary(sweep, counts.get(sweep.id, {})) for sweep in found])

    @routes.get("/sweeps/{reference}")
    def show_sweep(reference: str) -> report.SweepDocument:
        """One sweep, by number or name, with its trials."""
        sweep = sweeps.find_sweep(reference)
        return report.sweep_document(sweep, trials.trials(sweep.id), outbox.size(sweep.id))

    @routes.get("/sweeps/{reference}/events")
    def list_events(reference: str, after: int = 0) -> list[report.EventDocument]:
        """The audit log of one sweep, oldest first."""
        sweep = sweeps.find_sweep(reference)
        return [report.event_document(event) for event in sweeps.events(sweep_id=sweep.id, after=after)]

    return routes


def _control_routes(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/sweeps/{reference}", tags=["control"])
    sweeps, clock = service.sweeps, service.clock

    def summary(sweep: Sweep) -> report.SweepSummary:
        return report.sweep_summary(sweep, sweeps.trial_counts([sweep.id]).get(sweep.id, {}))

    @routes.post("/cancel", status_code=202)
    def cancel_sweep(reference: str, user: str = "anonymous") -> report.SweepSummary:
        """Ask for a sweep's end; finished trials keep their results."""
        return summary(control.cancel(reference, user=user, store=sweeps, clock=clock))

    @routes.post("/pause", status_code=202)
    def pause_sweep(reference: str, user: str = "anonymous") -> report.SweepSummary:
        """Ask for a sweep to stop at its trials' last checkpoints and to wait."""
        return summary(control.pause(reference, user=user, store=sweeps, clock=clock))

    @routes.post("/resume", status_code=202)
    def resume_sweep(reference: str, user: str = "anonymous") -> report.SweepSummary:
        """Ask for a paused sweep to go on."""
        return summary(control.resume(reference, user=user, store=sweeps, clock=clock))

    @routes.post("/retry", status_code=202)
    def retry_sweep(reference: str, user: str = "anonymous") -> report.SweepSummary:
        """Run failed and cancelled trials again."""
        return summary(control.retry(reference, user=user, store=sweeps, clock=clock))

    @routes.post("/priority")
    def set_priority(reference: str, body: Priority, user: str = "anonymous") -> report.SweepSummary:
        """Change a sweep's priority."""
        return summary(control.set_priority(reference, body.priority, user=user, store=sweeps, clock=clock))

    @routes.post("/slots")
    def scale_sweep(reference: str, body: Slots, user: str = "anonymous") -> report.SweepSummary:
        """Change how many trials a sweep may run at once."""
        return summary(control.scale(reference, body.slots, user=user, store=sweeps, clock=clock))

    return routes


def _read_routes(service: Service) -> APIRouter:
    routes = APIRouter(tags=["results"])

    @routes.get("/status")
    def status() -> report.StatusDocument:
        """Addresses, version, and what is going on."""
        capacity = _capacity(service)
        return report.StatusDocument(
            coordinator_url=service.coordinator_url,
            mlflow_url=service.mlflow_url,
            ray_dashboard_url=service.ray_dashboard_url,
            version=service.version,
            sweeps={str(state): count for state, count in service.sweeps.counts().items()},
            capacity=_numbers(capacity) if capacity else None,
            tracking_backlog=service.outbox.size(),
        )

    @routes.get("/trials/{trial_id}")
    def show_trial(trial_id: int) -> report.TrialDocument:
        """One trial."""
        return report.trial_document(service.trials.trial(trial_id))

    @routes.get("/trials/{trial_id}/log")
    def trial_log(trial_id: int, offset: Annotated[int, Query(ge=0)] = 0) -> report.LogPage:
        """A piece of what a trial printed, from a byte offset on."""
        trial = service.trials.trial(trial_id)
        # The state is read before the file: what a trial wrote before it ended is never cut off.
        path = service.log_path(trial.sweep_id, trial.id)
        piece = b""
        if path.is_file():
            with path.open("rb") as file:
                file.seek(offset)
                piece = file.read(LOG_PAGE_BYTES)
        over = report.is_over(trial) and len(piece) < LOG_PAGE_BYTES
        text = piece.decode("utf-8", errors="replace")
        return report.LogPage(trial_id=trial.id, text=text, next_offset=offset + len(piece), over=over)

    @routes.get("/leaderboard")
    def leaderboard(
        project: str | None = None,
        sweep: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 50,
        cursor: str | None = None,
    ) -> report.Leaderboard:
        """Ranked configurations of a project or a sweep."""
        return board.leaderboard(
            service.sweeps, service.board, project=project, sweep=sweep, limit=limit, cursor=cursor
        )

    return routes


def _capacity(service: Service) -> Capacity | None:
    try:
        return service.launcher.capacity()
    except Unreachable:
        return None


def _numbers(capacity: Capacity) -> dict[str, float]:
    return {
        "cpus": capacity.cpus,
        "gpus": capacity.gpus,
        "free_cpus": capacity.free_cpus,
        "free_gpus": capacity.free_gpus,
        "nodes": capacity.nodes,
    }


def _on_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OrchError)
    code = (
        404
        if isinstance(error, NotFound)
        else {ExitCode.BAD_INPUT: 422, ExitCode.UNREACHABLE: 503}.get(error.exit_code, 500)
    )
    complaints = [str(complaint) for complaint in error.complaints] if isinstance(error, BadInput) else [str(error)]
    return JSONResponse({"error": str(error), "complaints": complaints}, status_code=code)
