"""Who may call: the bearer of a token in force whose role covers the route's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, HTTPException, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from orchestrator.access import Principal, Role
from orchestrator.tokens import Doorkeeper

_scheme = HTTPBearer(auto_error=False, description="A token: of `orch token create`, or of the file $ORCH_HOME/token.")


def _needs(role: Role) -> Callable[..., Awaitable[Principal]]:
    async def check(
        request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Security(_scheme)] = None
    ) -> Principal:
        door: Doorkeeper = request.app.state.door
        found = None
        if given is not None:
            found = door.remembered(given.credentials) or await run_in_threadpool(door.principal, given.credentials)
        if found is None:
            raise HTTPException(
                status_code=401,
                detail="a valid token is needed: `Authorization: Bearer TOKEN`. The local one stands in "
                "$ORCH_HOME/token; an admin makes others with `orch token create`.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        found.require(role)
        return found

    return check


def _still(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Security(_scheme)] = None
) -> Callable[[], bool]:
    door: Doorkeeper = request.app.state.door
    secret = given.credentials if given is not None else ""
    return lambda: bool(door.remembered(secret) or door.principal(secret))


InForce = Annotated[Callable[[], bool], Depends(_still)]
"""Asks whether the request's token is in force still; for answers that last. Raises Unreachable."""
Viewer = Annotated[Principal, Depends(_needs(Role.VIEWER))]
Submitter = Annotated[Principal, Depends(_needs(Role.SUBMITTER))]
Admin = Annotated[Principal, Depends(_needs(Role.ADMIN))]
