"""Who may call: one bearer token, compared by hash and in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from fastapi import HTTPException, Request


def bearer(token: str) -> Callable[[Request], None]:
    """A dependency that lets only bearers of `token` pass. The token itself is not kept."""
    expected = hashlib.sha256(token.encode()).digest()

    def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(given.strip().encode()).digest()
        if scheme.lower() != "bearer" or not hmac.compare_digest(digest, expected):
            raise HTTPException(
                status_code=401,
                detail="a valid token is needed: `Authorization: Bearer TOKEN`; it stands in $ORCH_HOME/token",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check
