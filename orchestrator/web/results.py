"""Routes that read: status, trials, logs, the leaderboard."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from orchestrator import board, report
from orchestrator.records import Capacity
from orchestrator.tokens import Doorkeeper
from orchestrator.web import logs
from orchestrator.web.auth import Viewer
from orchestrator.web.errors import answers
from orchestrator.web.service import Service
from orchestrator.web.sweeps import BIGGEST_ID, Project

TrialId = Annotated[int, Path(ge=1, le=BIGGEST_ID, examples=[1])]


def routes(service: Service, _: Doorkeeper) -> APIRouter:
    """The router."""
    router = APIRouter(tags=["results"])

    @router.get("/status", responses=answers())
    def status(who: Viewer) -> report.StatusDocument:
        """Addresses, version, and what is going on."""
        capacity = service.capacity()
        return report.StatusDocument(
            coordinator_url=service.coordinator_url,
            mlflow_url=service.mlflow_url,
            ray_dashboard_url=service.ray_dashboard_url,
            version=service.version,
            sweeps={str(state): count for state, count in service.sweeps.counts(project=who.project).items()},
            capacity=_numbers(capacity) if capacity else None,
            tracking_backlog=service.outbox.size(project=who.project),
        )

    @router.get("/trials/{trial_id}", responses=answers(404, 422))
    def show_trial(trial_id: TrialId, who: Viewer) -> report.TrialDocument:
        """One trial."""
        document = report.trial_document(service.trial_of(who, trial_id))
        return document.model_copy(update={"children": service.trials.children(trial_id)})

    @router.get("/trials/{trial_id}/log", responses=answers(404, 422))
    def trial_log(
        trial_id: TrialId, who: Viewer, offset: Annotated[int, Query(ge=0, le=BIGGEST_ID)] = 0
    ) -> report.LogPage:
        """A piece of what a trial printed, from a byte offset on."""
        return logs.page(service, service.trial_of(who, trial_id), offset)

    @router.get("/leaderboard", responses=answers(404, 422))
    def leaderboard(
        who: Viewer,
        project: Project = None,
        sweep: Annotated[str | None, Query(max_length=100, description="Only this sweep, by number or name.")] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 50,
        cursor: Annotated[str | None, Query(max_length=100, description="`next_cursor` of the page before.")] = None,
    ) -> report.Leaderboard:
        """Ranked configurations of a project or a sweep."""
        project = who.scope(project)
        if sweep is not None:
            sweep = str(service.sweep_of(who, sweep).id)
        return board.leaderboard(
            service.sweeps, service.board, project=project, sweep=sweep, limit=limit, cursor=cursor
        )

    return router


def _numbers(capacity: Capacity) -> dict[str, float]:
    return {
        "cpus": capacity.cpus,
        "gpus": capacity.gpus,
        "free_cpus": capacity.free_cpus,
        "free_gpus": capacity.free_gpus,
        "nodes": capacity.nodes,
    }
