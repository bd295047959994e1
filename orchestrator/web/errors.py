"""Every refusal is one document, `report.ErrorDocument`, whatever refused."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from orchestrator.errors import BadInput, Conflict, Forbidden, IllegalMove, NotFound, OrchError, StaleRow, Unreachable
from orchestrator.report import ErrorDocument

log = logging.getLogger(__name__)

MEANINGS = {
    400: "The body is not JSON.",
    401: "No token, or one that is not in force.",
    403: "The token's role or project does not allow it.",
    404: "It does not exist, or not for this token.",
    409: "It contradicts what is there.",
    413: "The request is too large.",
    422: "The input is wrong; `complaints` lists all that is.",
    503: "The database or the cluster does not answer; try again.",
}

# The most special class first.
_CODES: tuple[tuple[type[OrchError], int], ...] = (
    (NotFound, 404),
    (Conflict, 409),
    (StaleRow, 409),
    (IllegalMove, 409),
    (Forbidden, 403),
    (BadInput, 422),
    (Unreachable, 503),
)


def answers(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The refusals that a route documents, beside those that every route has."""
    return {code: {"model": ErrorDocument, "description": MEANINGS[code]} for code in sorted({401, 403, 503, *codes})}


def document(code: int, error: str, complaints: list[str] | None = None, **options: Any) -> JSONResponse:
    """The answer."""
    body = ErrorDocument(error=error, complaints=complaints or [error])
    return JSONResponse(body.model_dump(), status_code=code, **options)


def install(api: FastAPI) -> None:
    """Answer all errors of `api` with the document."""
    api.add_exception_handler(OrchError, _on_refusal)
    api.add_exception_handler(RequestValidationError, _on_malformed)
    api.add_exception_handler(HTTPException, _on_http)
    api.add_exception_handler(Exception, _on_crash)


def _on_refusal(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OrchError)
    code = next((code for kind, code in _CODES if isinstance(error, kind)), 500)
    return document(code, str(error), list(map(str, error.complaints)) if isinstance(error, BadInput) else None)


def _on_malformed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    complaints = [_complaint(each) for each in found]
    code = 400 if any(each["type"] == "json_invalid" for each in found) else 422
    return document(code, "\n".join(complaints), complaints)


def _complaint(problem: Mapping[str, Any]) -> str:
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {problem['msg']}"


def _on_http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return document(error.status_code, str(error.detail), headers=error.headers)


def _on_crash(request: Request, error: Exception) -> JSONResponse:
    # What went wrong inside is for the log alone: it may name files, rows, or parts of a secret.
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return document(500, "the coordinator failed at this; its log (`orch doctor` tells where) says why.")
