"""The API of one coordinator, put together from its routes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import PlainTextResponse, Response

from orchestrator.errors import Forbidden
from orchestrator.report import HealthDocument
from orchestrator.tokens import Doorkeeper
from orchestrator.web import code, control, errors, lineage, nodes, results, streams, sweeps, tokens
from orchestrator.web.auth import Viewer
from orchestrator.web.limits import LimitBody
from orchestrator.web.service import Service

DESCRIPTION = (
    "Sweeps over Mixture-of-Experts routing and gated recurrent networks. Every route but `/healthz` takes a bearer "
    "token; a token that is bound to a project sees nothing of the others. Every refusal is one document."
)


class Exposition(PlainTextResponse):
    """Prometheus's text format."""

    media_type = "text/plain; version=0.0.4; charset=utf-8"


EXPOSED: dict[int | str, dict[str, Any]] = {200: {"content": {Exposition.media_type: {"schema": {"type": "string"}}}}}


def create_api(service: Service) -> FastAPI:
    """The API of one coordinator."""
    api = FastAPI(
        title="orch",
        version=service.version,
        description=DESCRIPTION,
        docs_url="/api/docs",
        redoc_url=None,
        openapi_url="/api/openapi.json",
        # `/metrics` has the figures; to ask at each request whether somebody traces it costs more than its parsing
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    api.state.door = Doorkeeper(service.tokens)
    api.include_router(_open_routes(service))
    for rooms in (sweeps, code, control, lineage, results, streams, tokens, nodes):
        api.include_router(rooms.routes(service, api.state.door), prefix="/api/v1")
    api.include_router(control.trial_routes(service, api.state.door), prefix="/api/v1")
    errors.install(api)
    api.add_middleware(LimitBody)
    return api


def _open_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["service"])

    @router.get("/healthz")
    def health() -> HealthDocument:
        """Alive, and which orch this is. Needs no token."""
        return HealthDocument(status="ok", version=service.version, instance=service.instance)

    # `Response` has no type of its own: FastAPI gives the route's type to the refusals too, which are JSON
    @router.get("/metrics", responses=errors.answers() | EXPOSED, response_class=Response)
    def metrics(who: Viewer) -> Exposition:
        """What Prometheus reads. Takes a token that is not bound to a project."""
        if who.project is not None:
            raise Forbidden(f"the token {who.name!r} is bound to project {who.project!r}; these figures are of all.")
        return Exposition(service.metrics())

    return router
