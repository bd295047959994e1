"""The route by which sweeps' own code comes in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path

from orchestrator import packages, report
from orchestrator.tokens import Doorkeeper
from orchestrator.web.auth import Submitter
from orchestrator.web.errors import answers
from orchestrator.web.service import Service

Name = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="The hash of its content.")]


def routes(service: Service, _: Doorkeeper) -> APIRouter:
    """The router."""
    router = APIRouter(tags=["sweeps"])

    @router.put("/code/{package}", status_code=201, responses=answers(400, 413, 422))
    def put_code(
        package: Name, content: Annotated[bytes, Body(media_type="application/octet-stream")], _: Submitter
    ) -> report.CodeDocument:
        """Bring a code package. Bringing it again changes nothing."""
        return report.CodeDocument(package=package, files=packages.unpack(package, content, service.storage))

    return router
