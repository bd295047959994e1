"""Follow a sweep or a log to its end, live. Ctrl-C detaches and cancels nothing.

The coordinator streams what is new. Where a stream breaks, the next one goes on after the last message; where none
comes through, as behind a proxy that holds them back, plain questions take their place.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import typer
from rich.live import Live

from orchestrator import report
from orchestrator.cli import render
from orchestrator.cli.client import Client
from orchestrator.cli.events import Message
from orchestrator.errors import Denied, NotFound, OrchError, Unreachable
from orchestrator.lifecycle import TRIAL_ENDS

POLL_S = 0.5
PATIENCE_S = 60.0
"""How long a coordinator may be away (restarted, say) before following gives up."""
TRACKING_WAIT_S = 90.0
"""How long an ended sweep waits to be seen in the tracker: one that just started needs half a minute."""
DEAF_STREAMS = 3
"""Streams in a row that said nothing, while the coordinator answers plain questions, before no more are tried."""


def until_over(client: Client, sweep_id: int, *, quiet: bool = False) -> report.SweepDocument:
    """Follow a sweep until it has ended and the tracker knows it.

    Args:
        quiet: nothing goes to standard output.

    Raises:
        typer.Exit: Ctrl-C; the sweep runs on.
        Unreachable: the coordinator was away for a minute.
    """
    watched = _Watched(client, sweep_id)
    try:
        if quiet or not render.out.is_terminal:
            return _lines(watched)
        return _table(watched)
    except KeyboardInterrupt:
        render.note(f"\ndetached; sweep {sweep_id} goes on. Follow it again with: orch watch {sweep_id}")
        raise typer.Exit(130) from None


def log(client: Client, trial_id: int) -> None:
    """Print what a trial prints until it ends. Raises NotFound, Unreachable."""
    offset = 0

    def take(message: Message) -> bool:
        nonlocal offset
        if message.event == "log":
            page = report.LogPage.model_validate_json(message.data)
            offset = page.next_offset
            _print(page.text)
        return message.event == "end"

    def ask() -> bool:
        nonlocal offset
        page = client.log(trial_id, offset)
        offset = page.next_offset
        _print(page.text)
        return page.over

    for _ in _rounds(lambda: client.stream_log(trial_id, str(offset)), take, ask):
        pass


class _Watched:
    """A sweep as it was last told of, in each of its `rounds`. events: those that nobody has taken from here yet."""

    document: report.SweepDocument

    def __init__(self, client: Client, sweep_id: int) -> None:
        self._client, self._sweep_id, self._last = client, sweep_id, ""
        self._trials: dict[int, report.TrialDocument] = {}
        self.events: list[report.EventDocument] = []

    def rounds(self) -> Iterator[None]:
        """Once for every change, and now and then without any, until the sweep has ended and is tracked."""
        return _rounds(lambda: self._client.stream_sweep(self._sweep_id, self._last), self._take, self._ask)

    def _take(self, message: Message) -> bool:
        if message.event == "progress":
            new = report.SweepDocument.model_validate_json(message.data)
            self._trials |= {each.trial_id: each for each in new.trials}
            in_order = sorted(self._trials.values(), key=lambda each: each.number)
            self.document = new.model_copy(update={"trials": in_order})
        elif message.event == "event":
            self.events.append(report.EventDocument.model_validate_json(message.data))
        self._last = message.id or self._last
        return message.event == "end"

    def _ask(self) -> bool:
        self._ask_for_events()
        self.document = self._client.sweep(str(self._sweep_id))
        over = self.document.is_over and not self.document.tracking_backlog
        # It may have ended between the two questions; after its end no more come
        while over and self._ask_for_events():
            pass
        return over

    def _ask_for_events(self) -> bool:
        """Whether there were any."""
        page = self._client.events(str(self._sweep_id), int(self._last)).root if self._last else []
        self.events += page
        self._last = str(page[-1].event_id) if page else self._last
        return bool(page)


def _rounds(
    stream: Callable[[], Iterator[Message]], take: Callable[[Message], bool], ask: Callable[[], bool]
) -> Iterator[None]:
    """Take messages, stream after stream, or else ask, until one of them says that it is over.

    Raises Unreachable when neither came through for a minute; NotFound and Denied at once.
    """
    deaf = 0
    patient_until = time.monotonic() + PATIENCE_S
    while True:
        heard = False
        try:
            for message in stream() if deaf < DEAF_STREAMS else ():
                heard, deaf = True, 0
                patient_until = time.monotonic() + PATIENCE_S
                over = take(message)
                yield
                if over:
                    return
        except (NotFound, Denied):
            raise
        except OrchError:
            pass  # asking tells whether the coordinator is away or its streams alone
        try:
            over = ask()
        except (NotFound, Denied):
            raise
        except Unreachable:
            if time.monotonic() > patient_until:
                raise
        else:
            patient_until = time.monotonic() + PATIENCE_S
            deaf += not heard
            yield
            if over:
                return
        time.sleep(POLL_S)


def _table(watched: _Watched) -> report.SweepDocument:
    with Live(console=render.out, auto_refresh=False) as live:
        for _ in _until_tracked(watched, live.console.print):
            live.update(render.sweep(watched.document), refresh=True)
    return watched.document


def _lines(watched: _Watched) -> report.SweepDocument:
    """What happens, line by line, on standard error."""
    first = True
    for _ in _until_tracked(watched, render.note):
        if first:
            document, first = watched.document, False
            render.note(f"sweep {document.sweep_id}: {document.state}{_why(document.reason)}")
        for event in watched.events:
            render.note(_line(event, watched.document))
        watched.events.clear()
    return watched.document


def _line(event: report.EventDocument, document: report.SweepDocument) -> str:
    what = event.what.rpartition(" -> ")[2]
    if event.trial_id is None:
        return f"sweep {event.sweep_id}: {what}{_why(event.reason)}"
    trial = next((each for each in document.trials if each.trial_id == event.trial_id), None)
    value = trial.metrics.get(document.metric) if trial and what in TRIAL_ENDS else None
    score = f"  {document.metric} {value:.4f} at step {trial.step}" if trial and value is not None else ""
    return f"trial {event.trial_id}: {what}{score}{_why(event.reason)}"


def _why(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _until_tracked(watched: _Watched, say: Callable[[str], None]) -> Iterator[None]:
    """Rounds; those after the sweep's end last a minute and a half at most."""
    ended_at: float | None = None
    for _ in watched.rounds():
        yield
        document = watched.document
        if document.is_over and ended_at is None:
            ended_at = time.monotonic()
            if document.tracking_backlog:
                say(f"sweep {document.sweep_id} has ended; waiting for the tracker to show it")
        if ended_at is not None and document.tracking_backlog and time.monotonic() - ended_at > TRACKING_WAIT_S:
            say("the tracker does not answer yet; what it has not been told is kept and sent later")
            return


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
