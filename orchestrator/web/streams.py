"""Live progress as server-sent events: who lost the connection goes on where it was, by `Last-Event-ID`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from orchestrator import report
from orchestrator.access import Principal
from orchestrator.errors import NotFound, Unreachable
from orchestrator.lifecycle import SWEEP_ENDS
from orchestrator.records import Event, TrialMark
from orchestrator.tokens import Doorkeeper
from orchestrator.web import logs
from orchestrator.web.auth import InForce, Viewer
from orchestrator.web.errors import answers
from orchestrator.web.results import TrialId
from orchestrator.web.service import Service
from orchestrator.web.sweeps import Reference

LOOK_EVERY_S = 0.5
SIGN_OF_LIFE_S = 10.0
"""A comment is sent after so long without news, so that both ends see whether the other is there."""
CHECK_EVERY_S = 10.0
"""How often it is asked whether the token is in force still: one that was revoked or rotated sees no more."""
LONGEST_S = 600.0
"""A stream ends after so long and its client comes back."""

LastEventId = Annotated[int, Header(alias="Last-Event-ID", ge=0, le=2**63 - 1)]
EVENTS_A_LOOK = 1000


@dataclass(frozen=True, slots=True)
class News:
    """What a look found. pause_s: until the next look; None: the stream is at its end."""

    said: bytes
    pause_s: float | None


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


def routes(service: Service, _: Doorkeeper) -> APIRouter:
    """The router."""
    router = APIRouter(tags=["streams"], default_response_class=EventStream)
    text = {"text/event-stream": {"schema": {"type": "string"}}}
    happy: dict[int | str, dict[str, Any]] = {200: {"description": "Server-sent events.", "content": text}}

    @router.get("/sweeps/{reference}/stream", responses={**answers(404, 422), **happy})
    def stream_sweep(
        reference: Reference, who: Viewer, in_force: InForce, last_event_id: LastEventId = 0
    ) -> EventStream:
        """A sweep until it has ended and the tracker knows it.

        `progress`: the sweep with those of its trials that have changed, all of them at first. `event`: a line of the
        audit log under its number; those after `Last-Event-ID` first where that is given. `end`: nothing follows.
        """
        sweep = service.sweep_of(who, reference)
        return _answer(_Watched(service, sweep.id, last_event_id).look, in_force)

    @router.get("/trials/{trial_id}/log/stream", responses={**answers(404, 422), **happy})
    def stream_log(trial_id: TrialId, who: Viewer, in_force: InForce, last_event_id: LastEventId = 0) -> EventStream:
        """What a trial prints until it ends.

        `log`: a piece of it, under the byte offset where the next begins; from `Last-Event-ID` on where that is given.
        `end`: nothing follows.
        """
        service.trial_of(who, trial_id)
        return _answer(_Read(service, who, trial_id, last_event_id).look, in_force)

    return router


class _Watched:
    """A sweep as it was told last."""

    def __init__(self, service: Service, sweep_id: int, told: int) -> None:
        self._service, self._sweep_id = service, sweep_id
        self._told = told or service.changes.newest_event(sweep_id)
        self._marks: Mapping[int, TrialMark] = {}
        self._sweep: report.SweepDocument | None = None

    def look(self) -> News:
        """What is new since the last look."""
        service, sweep_id = self._service, self._sweep_id
        # Events are read first: what is told of the sweep beside them is never older than they are
        events = self._events(self._told)
        sweep, marks = service.sweeps.sweep(sweep_id), service.changes.marks(sweep_id)
        changed = [trial_id for trial_id, mark in marks.items() if mark != self._marks.get(trial_id)]
        counts = Counter(mark.state for mark in marks.values())
        backlog = service.outbox.size(sweep_id)
        over = sweep.state in SWEEP_ENDS and not backlog
        if over and len(events) < EVENTS_A_LOOK:
            # It may have ended since they were read; after its end there are no more
            events += self._events(events[-1].id if events else self._told)
        now = report.sweep_progress(sweep, counts, service.changes.trials(changed), backlog)
        bare = now.model_copy(update={"trials": []})
        said = []
        if changed or bare != self._sweep:
            said.append(_message("progress", now, id=self._told if self._sweep is None else None))
        said += [_message("event", report.event_document(event), id=event.id) for event in events]
        self._told = events[-1].id if events else self._told
        self._marks, self._sweep = marks, bare
        if len(events) >= EVENTS_A_LOOK:
            return News(b"".join(said), 0.0)
        if over:
            return News(b"".join([*said, END]), None)
        return News(b"".join(said), LOOK_EVERY_S)

    def _events(self, after: int) -> list[Event]:
        return self._service.sweeps.events(sweep_id=self._sweep_id, after=after, limit=EVENTS_A_LOOK)


class _Read:
    """A trial's log, as far as it was told."""

    def __init__(self, service: Service, who: Principal, trial_id: int, offset: int) -> None:
        self._service, self._who, self._trial_id, self._offset = service, who, trial_id, offset

    def look(self) -> News:
        """A page of what was printed since the last look."""
        page = logs.page(self._service, self._service.trial_of(self._who, self._trial_id), self._offset)
        said = _message("log", page, id=page.next_offset) if page.text else b""
        self._offset = page.next_offset
        if page.over:
            return News(said + END, None)
        return News(said, 0.0 if said else LOOK_EVERY_S)


END = b"event: end\ndata: {}\n\n"


def _answer(look: Callable[[], News], in_force: Callable[[], bool]) -> EventStream:
    """Proxies are asked not to hold it back."""
    return EventStream(_stream(look, in_force), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


async def _stream(look: Callable[[], News], in_force: Callable[[], bool]) -> AsyncIterator[bytes]:
    until = time.monotonic() + LONGEST_S
    spoke = checked = time.monotonic()
    while time.monotonic() < until:
        try:
            if time.monotonic() - checked >= CHECK_EVERY_S:
                if not await run_in_threadpool(in_force):
                    return
                checked = time.monotonic()
            news = await run_in_threadpool(look)
        except (Unreachable, NotFound):
            return  # its client asks again, and gets the refusal
        if news.said:
            yield news.said
            spoke = time.monotonic()
        elif time.monotonic() - spoke > SIGN_OF_LIFE_S:
            yield b": still here\n\n"
            spoke = time.monotonic()
        if news.pause_s is None:
            return
        await asyncio.sleep(news.pause_s)


def _message(event: str, document: BaseModel, *, id: int | None) -> bytes:
    number = "" if id is None else f"id: {id}\n"
    return f"event: {event}\n{number}data: {document.model_dump_json()}\n\n".encode()
