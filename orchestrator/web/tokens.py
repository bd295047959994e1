"""Routes on bearer tokens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from orchestrator import report, tokens
from orchestrator.access import Role
from orchestrator.tokens import Doorkeeper
from orchestrator.web.auth import Admin, Viewer
from orchestrator.web.errors import answers
from orchestrator.web.service import Service

Name = Annotated[str, Path(min_length=1, max_length=100, examples=["ada"])]


class NewToken(BaseModel):
    """A token that is asked for."""

    name: str = Field(min_length=1, max_length=100, description="Whose it is; the audit log names its bearer so.")
    role: Role = Field(description="viewer reads; submitter submits and controls, too; admin makes tokens, too.")
    project: str | None = Field(None, min_length=1, max_length=100, description="The only project that it reaches.")


def routes(service: Service, door: Doorkeeper) -> APIRouter:
    """The router. `door` forgets what it knows when tokens change."""
    router = APIRouter(prefix="/tokens", tags=["tokens"])
    store, clock = service.tokens, service.clock

    @router.get("", responses=answers())
    def list_tokens(_: Admin) -> report.TokenList:
        """All there ever were, oldest first, without their secrets."""
        return report.TokenList(tokens=[report.token_document(token) for token in store.tokens()])

    @router.post("", status_code=201, responses=answers(400, 409, 413, 422))
    def create_token(body: NewToken, who: Admin) -> report.NewTokenDocument:
        """Make a token. Its secret is told in this answer and never again."""
        made, secret = tokens.create(body.name, body.role, body.project, by=who.name, store=store, clock=clock)
        return report.new_token_document(made, secret)

    @router.post("/{name}/rotate", responses=answers(404, 422))
    def rotate_token(name: Name, who: Viewer) -> report.NewTokenDocument:
        """A new secret for a token, an admin's right and its bearer's own; the old one is worth nothing from now on."""
        if name != who.name:
            who.require(Role.ADMIN)
        made, secret = tokens.rotate(name, by=who.name, store=store, clock=clock)
        door.forget()
        return report.new_token_document(made, secret)

    @router.delete("/{name}", responses=answers(404, 422))
    def revoke_token(name: Name, who: Admin) -> report.TokenDocument:
        """End a token."""
        ended = tokens.revoke(name, by=who.name, store=store, clock=clock)
        door.forget()
        return report.token_document(ended)

    return router
