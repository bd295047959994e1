"""How much a request may bring."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.web.errors import document

MOST_BYTES = 4 * 1024 * 1024
"""Of a body. A sweep file has at most a million characters, most of which JSON writes with one or two bytes."""


class LimitBody:
    """ASGI middleware: answers 413 to a body beyond `MOST_BYTES`, declared or not, and never holds more of it."""

    def __init__(self, app: ASGIApp, most_bytes: int = MOST_BYTES) -> None:
        self._app, self._most_bytes = app, most_bytes
        self._why = f"the request has more than {most_bytes:,} bytes."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _declared(scope) > self._most_bytes:
            await document(413, self._why, headers={"Connection": "close"})(scope, receive, send)
        else:
            await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most_bytes:
                # As FastAPI's own error: it reads the body, and takes any other for a body that it cannot parse
                raise HTTPException(413, self._why)
            return message

        return counted


def _declared(scope: Scope) -> int:
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(length) if length.isdigit() else 0
