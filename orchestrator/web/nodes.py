"""Routes on the nodes of the cluster: which there are, and which are to be left."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from orchestrator import control, report
from orchestrator.tokens import Doorkeeper
from orchestrator.web.auth import Admin, Viewer
from orchestrator.web.control import User
from orchestrator.web.errors import answers
from orchestrator.web.service import Service

Node = Annotated[
    str, Path(min_length=1, max_length=200, description="A node's name, address, id, or the beginning of that.")
]


def routes(service: Service, _: Doorkeeper) -> APIRouter:
    """The router."""
    router = APIRouter(prefix="/nodes", tags=["nodes"], responses=answers(503))
    nodes = service.nodes

    @router.get("")
    def list_nodes(_: Viewer) -> list[report.NodeDocument]:
        """What the cluster consists of."""
        drained = nodes.drained()
        return [
            report.node_document(place, drained=place.node_id in drained)
            for place in service.launcher.capacity().places
        ]

    @router.post("/{node}/drain", status_code=202, responses=answers(404, 422))
    def drain_node(node: Node, who: Admin, user: User = "anonymous") -> report.NodeDocument:
        """Have trials leave a node at their next reports, and start none there."""
        place = control.find_node(node, service.launcher.capacity().places)
        nodes.drain(place.node_id, name=place.name, user=who.acting_for(user), now=service.clock.now())
        return report.node_document(place, drained=True)

    @router.post("/{node}/undrain", status_code=202, responses=answers(404, 422))
    def undrain_node(node: Node, who: Admin, user: User = "anonymous") -> report.NodeDocument:
        """Let a node be used again."""
        place = control.find_node(node, service.launcher.capacity().places)
        nodes.undrain(place.node_id, name=place.name, user=who.acting_for(user), now=service.clock.now())
        return report.node_document(place, drained=False)

    return router
