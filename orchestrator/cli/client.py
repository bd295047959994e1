"""The API, as the commands see it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from orchestrator import report
from orchestrator.cli.events import Message, messages
from orchestrator.errors import BadInput, Conflict, Denied, Forbidden, NotFound, OrchError, Unreachable
from orchestrator.packages import Package

RETRY_WAITS_S = (0.5, 2.0)
"""Before a submission is sent again that nobody answered."""

SILENCE_S = 35.0
"""A live stream that says nothing for so long is dead: the coordinator gives a sign of life more often."""

Document = TypeVar("Document", bound=BaseModel)


class Client:
    """Calls a coordinator. Methods raise Unreachable, NotFound, BadInput or OrchError with the server's message."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._http = httpx.Client(
            base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=httpx.Timeout(30, connect=5)
        )

    def submit(self, text: str, file: str, user: str, *, rerun: bool = False) -> report.SweepDocument:
        """Queue a sweep file, once: a request whose answer got lost is sent again under the same key."""
        request = {
            "json": {"text": text, "file": file, "user": user, "rerun": rerun},
            "headers": {"Idempotency-Key": uuid.uuid4().hex},
        }
        for wait_s in RETRY_WAITS_S:
            try:
                return self._ask(report.SweepDocument, "POST", "/sweeps", **request)
            except Denied:
                raise
            except Unreachable:
                time.sleep(wait_s)
        return self._ask(report.SweepDocument, "POST", "/sweeps", **request)

    def bring(self, package: Package) -> report.CodeDocument:
        """Bring a sweep's own code, ahead of its file."""
        headers = {"Content-Type": "application/octet-stream"}
        return self._ask(report.CodeDocument, "PUT", f"/code/{package.name}", content=package.content, headers=headers)

    def check(self, text: str, file: str, *, forecast: bool = False) -> report.PlanDocument:
        """Check a sweep file; nothing is queued."""
        body = {"text": text, "file": file, "forecast": forecast}
        return self._ask(report.PlanDocument, "POST", "/check", json=body)

    def sweeps(self, project: str | None, states: list[str], limit: int) -> report.SweepList:
        """Newest first."""
        params: dict[str, Any] = {"limit": limit, "state": states}
        return self._ask(report.SweepList, "GET", "/sweeps", params=params | ({"project": project} if project else {}))

    def sweep(self, reference: str) -> report.SweepDocument:
        """One sweep with its trials."""
        return self._ask(report.SweepDocument, "GET", f"/sweeps/{_part(reference)}")

    def change(self, reference: str, what: str, user: str, **body: int) -> report.SweepSummary:
        """Ask for a change of a sweep: cancel, pause, resume, retry; priority or slots with their number."""
        path = f"/sweeps/{_part(reference)}/{what}"
        return self._ask(report.SweepSummary, "POST", path, params={"user": user}, json=body or None)

    def cancel(self, reference: str, user: str) -> report.SweepSummary:
        """Ask for a sweep's end."""
        return self.change(reference, "cancel", user)

    def change_trial(self, trial_id: int, what: str, user: str) -> report.TrialDocument:
        """Ask for a change of one trial: cancel, pause, resume, retry."""
        return self._ask(report.TrialDocument, "POST", f"/trials/{trial_id}/{what}", params={"user": user})

    def nodes(self) -> report.NodeList:
        """What the cluster consists of."""
        return self._ask(report.NodeList, "GET", "/nodes")

    def drain(self, node: str, user: str, *, undo: bool) -> report.NodeDocument:
        """Have trials leave a node, or let it be used again."""
        path = f"/nodes/{_part(node)}/{'undrain' if undo else 'drain'}"
        return self._ask(report.NodeDocument, "POST", path, params={"user": user})

    def extend(self, reference: str, trial_id: int | None, steps: int, user: str) -> report.SweepDocument:
        """Train one trial further, or a sweep's."""
        path = f"/sweeps/{_part(reference)}" if trial_id is None else f"/trials/{trial_id}"
        return self._ask(report.SweepDocument, "POST", f"{path}/extend", params={"user": user}, json={"steps": steps})

    def fork(
        self, trial_id: int, step: int | None, assignments: list[str], seeds: int, user: str
    ) -> report.SweepDocument:
        """Start children from a trial's checkpoint."""
        body = {"step": step, "set": assignments, "seeds": seeds}
        return self._ask(report.SweepDocument, "POST", f"/trials/{trial_id}/fork", params={"user": user}, json=body)

    def events(self, reference: str | None, after: int = 0) -> report.EventList:
        """A page of a sweep's audit log, oldest first; of that of tokens and nodes where none is named."""
        of = "" if reference is None else f"/sweeps/{_part(reference)}"
        return self._ask(report.EventList, "GET", f"{of}/events", params={"after": after})

    def trial(self, trial_id: int) -> report.TrialDocument:
        """One trial."""
        return self._ask(report.TrialDocument, "GET", f"/trials/{trial_id}")

    def log(self, trial_id: int, offset: int) -> report.LogPage:
        """A piece of a trial's log."""
        return self._ask(report.LogPage, "GET", f"/trials/{trial_id}/log", params={"offset": offset})

    def leaderboard(self, **query: Any) -> report.Leaderboard:
        """Ranked configurations."""
        params = {name: value for name, value in query.items() if value is not None}
        return self._ask(report.Leaderboard, "GET", "/leaderboard", params=params)

    def status(self) -> report.StatusDocument:
        """Addresses, version, and what is going on."""
        return self._ask(report.StatusDocument, "GET", "/status")

    def stream_sweep(self, sweep_id: int, last: str) -> Iterator[Message]:
        """A sweep's live stream, from after the message whose id was `last`. Ends when the connection does."""
        return self._stream(f"/sweeps/{sweep_id}/stream", last)

    def stream_log(self, trial_id: int, last: str) -> Iterator[Message]:
        """What a trial prints, live, from a byte offset on."""
        return self._stream(f"/trials/{trial_id}/log/stream", last)

    def tokens(self) -> report.TokenList:
        """All tokens, without their secrets."""
        return self._ask(report.TokenList, "GET", "/tokens")

    def create_token(self, name: str, role: str, project: str | None) -> report.NewTokenDocument:
        """A new token."""
        body = {"name": name, "role": role, "project": project}
        return self._ask(report.NewTokenDocument, "POST", "/tokens", json=body)

    def rotate_token(self, name: str) -> report.NewTokenDocument:
        """A new secret for a token."""
        return self._ask(report.NewTokenDocument, "POST", f"/tokens/{_part(name)}/rotate")

    def revoke_token(self, name: str) -> report.TokenDocument:
        """End a token."""
        return self._ask(report.TokenDocument, "DELETE", f"/tokens/{_part(name)}")

    def _stream(self, path: str, last: str) -> Iterator[Message]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        timeout = httpx.Timeout(5, read=SILENCE_S)
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    response.read()
                    raise _refusal(response, self.url)
                yield from messages(response.iter_lines())
        except httpx.TransportError as error:
            raise self._away(error) from None

    def _away(self, error: httpx.TransportError) -> Unreachable:
        return Unreachable(
            f"the coordinator at {self.url} does not answer ({type(error).__name__}). "
            "`orch status` tells what runs; `orch up` starts what does not."
        )

    def _ask(self, answer: type[Document], method: str, path: str, **request: Any) -> Document:
        try:
            response = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise self._away(error) from None
        if response.is_success:
            return answer.model_validate_json(response.content)
        raise _refusal(response, self.url)


def _part(reference: str) -> str:
    """A sweep's name or number as one path segment."""
    return httpx.URL("http://x").join(reference.replace("/", "%2F")).raw_path.decode().lstrip("/") or "-"


def _refusal(response: httpx.Response, url: str) -> OrchError:
    try:
        message = str(response.json()["error"])
    except (ValueError, LookupError, TypeError):
        message = response.text[:500]
    match response.status_code:
        case 401:
            return Denied(f"the coordinator at {url} refused the token: {message}")
        case 403:
            return Forbidden(message)
        case 404:
            return NotFound(message)
        case 409:
            return Conflict(message)
        case 400 | 422 | 413:
            return BadInput(message)
        case 503:
            return Unreachable(message)
        case status:
            return OrchError(f"the coordinator answered {status}: {message}")
