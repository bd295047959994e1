"""Live progress: what a stream tells, where it goes on after a break, and how the commands follow it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from orchestrator import report
from orchestrator.access import Role
from orchestrator.cli import follow
from orchestrator.cli.client import Client
from orchestrator.cli.events import Message, messages
from orchestrator.errors import NotFound
from orchestrator.lifecycle import Actor, SweepState
from orchestrator.web import streams
from tests.orchestrator.web.conftest import NOW, SECRET
from tests.orchestrator.web.test_api import finish, submit
from tests.support.listening import listening

PATIENCE_S = 60


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(streams, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(follow, "POLL_S", 0.01)


@pytest.fixture
def url(api) -> Iterator[str]:
    with listening(api) as address:
        yield address


@pytest.fixture
def remote(url) -> Client:
    return Client(url, SECRET)


@pytest.fixture
def sweep(client) -> report.SweepDocument:
    return report.SweepDocument.model_validate(submit(client).json())


def end(service, sweep_id: int) -> None:
    """The sweep ends, and the tracker has been told."""
    finish(service, sweep_id)
    seen = service.sweeps.sweep(sweep_id)
    for state in (SweepState.STARTING, SweepState.RUNNING, SweepState.SUCCEEDED):
        seen = service.sweeps.move_sweep(seen, state, actor=Actor.COORDINATOR, reason="because", now=NOW)
    service.outbox.sent([item.id for item in service.outbox.pending()])


def test_a_stream_tells_the_sweep_then_what_changes_then_its_end(remote, service, sweep):
    stream = remote.stream_sweep(sweep.sweep_id, "")
    first = next(stream)
    assert report.SweepDocument.model_validate_json(first.data) == sweep
    one = service.trials.start_trial(sweep.trials[0].trial_id, now=NOW)
    changed = next(message for message in stream if message.event == "progress")
    assert [each.trial_id for each in report.SweepDocument.model_validate_json(changed.data).trials] == [one.id]
    event = next(message for message in stream if message.event == "event")
    assert report.EventDocument.model_validate_json(event.data).what == "pending -> running"
    assert int(event.id) > int(first.id)
    service.trials.requeue_trials(sweep.sweep_id, reason="", now=NOW)
    end(service, sweep.sweep_id)
    told = list(stream)
    assert told[-1].event == "end"
    numbers = [int(message.id) for message in told if message.event == "event"]
    assert numbers == [event.id for event in service.sweeps.events(sweep_id=sweep.sweep_id, after=int(event.id))]


@pytest.mark.parametrize("how", ["revoke", "rotate"])
def test_a_stream_ends_with_its_token(remote, url, sweep, service, monkeypatch, how):
    monkeypatch.setattr(streams, "CHECK_EVERY_S", 0.0)
    log = service.log_path(sweep.sweep_id, sweep.trials[0].trial_id)
    log.parent.mkdir(parents=True)
    log.write_text("hello\n")
    ada = Client(url, remote.create_token("ada", Role.VIEWER, None).token)
    told, printed = ada.stream_sweep(sweep.sweep_id, ""), ada.stream_log(sweep.trials[0].trial_id, "")
    assert (next(told).event, next(printed).event) == ("progress", "log")
    remote.revoke_token("ada") if how == "revoke" else remote.rotate_token("ada")
    assert not [each for each in (*told, *printed) if each.event], "neither news nor an orderly end"


def test_a_stream_goes_on_while_its_token_is_in_force(remote, service, sweep, monkeypatch):
    monkeypatch.setattr(streams, "CHECK_EVERY_S", 0.0)
    stream = remote.stream_sweep(sweep.sweep_id, "")
    next(stream)
    end(service, sweep.sweep_id)
    assert list(stream)[-1].event == "end"


def test_after_a_break_the_stream_goes_on_after_the_last_event(remote, service, sweep):
    first = next(remote.stream_sweep(sweep.sweep_id, ""))
    end(service, sweep.sweep_id)
    told = [message for message in remote.stream_sweep(sweep.sweep_id, first.id) if message.event == "event"]
    events = service.sweeps.events(sweep_id=sweep.sweep_id)
    assert [int(message.id) for message in told] == [event.id for event in events[1:]]
    assert list(remote.stream_sweep(sweep.sweep_id, told[-1].id))[-1].event == "end"


def test_a_log_streams_from_any_byte_and_cuts_no_character(remote, service, sweep):
    trial = sweep.trials[0]
    path = service.log_path(sweep.sweep_id, trial.trial_id)
    path.parent.mkdir(parents=True)
    path.write_bytes("größe ".encode() + "ß".encode()[:1])
    stream = remote.stream_log(trial.trial_id, "2")
    page = report.LogPage.model_validate_json(next(stream).data)
    assert page.text == "öße "
    with path.open("ab") as log:
        log.write("ß".encode()[1:] + b"\n")
    finish(service, sweep.sweep_id)
    pieces = [message for message in stream if message.event]
    assert [message.event for message in pieces] == ["log", "end"]
    assert report.LogPage.model_validate_json(pieces[0].data).text == "ß\n"


def test_what_is_not_there_is_not_streamed(remote):
    with pytest.raises(NotFound):
        next(remote.stream_sweep(99, ""))
    with pytest.raises(NotFound):
        next(remote.stream_log(99, ""))


def test_watching_prints_every_event_once_though_every_connection_breaks(service, sweep, url, capfd):
    with breaking_proxy(url, after_bytes=6000) as (proxy, connections):
        following = threading.Thread(target=follow.until_over, args=(Client(proxy, SECRET), sweep.sweep_id))
        following.start()
        seen = ""
        while "queued" not in seen:
            assert following.is_alive()
            seen += capfd.readouterr().err
        for trial in sweep.trials:
            service.trials.start_trial(trial.trial_id, now=NOW)
        service.trials.requeue_trials(sweep.sweep_id, reason="", now=NOW)
        end(service, sweep.sweep_id)
        following.join(timeout=PATIENCE_S)
        assert not following.is_alive()
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1] == f"sweep {sweep.sweep_id}: succeeded (because)"
    assert sum("succeeded" in line for line in lines) == 1 + len(sweep.trials)
    assert len(connections) > 2


def test_a_sweep_that_ends_after_its_events_were_read_is_told_to_its_end(service, remote, sweep, monkeypatch):
    read = service.sweeps.events

    def read_too_early(**options):
        found = read(**options)
        if service.sweeps.sweep(sweep.sweep_id).state is SweepState.QUEUED:
            end(service, sweep.sweep_id)
        return found

    monkeypatch.setattr(service.sweeps, "events", read_too_early)
    told = [message for message in remote.stream_sweep(sweep.sweep_id, "") if message.event == "event"]
    assert report.EventDocument.model_validate_json(told[-1].data).what == "running -> succeeded"


def test_questions_tell_a_sweep_to_its_end_though_it_ends_between_two(service, remote, sweep, monkeypatch, capfd):
    first = next(remote.stream_sweep(sweep.sweep_id, ""))
    streams_left, asked = [[first]], remote.events

    def ask_too_early(*words):
        found = asked(*words)
        if service.sweeps.sweep(sweep.sweep_id).state is SweepState.QUEUED:
            end(service, sweep.sweep_id)
        return found

    monkeypatch.setattr(remote, "stream_sweep", lambda *_: iter(streams_left.pop() if streams_left else ()))
    monkeypatch.setattr(remote, "events", ask_too_early)
    follow.until_over(remote, sweep.sweep_id)
    assert capfd.readouterr().err.splitlines()[-1] == f"sweep {sweep.sweep_id}: succeeded (because)"


def test_where_no_stream_comes_through_questions_take_its_place(remote, service, sweep, monkeypatch):
    tried = []

    def deaf(*_: object) -> Iterator[Message]:
        tried.append(1)
        return iter(())

    monkeypatch.setattr(remote, "stream_sweep", deaf)
    ending = threading.Thread(target=end, args=(service, sweep.sweep_id))
    ending.start()
    assert follow.until_over(remote, sweep.sweep_id).state is SweepState.SUCCEEDED
    ending.join()
    assert 1 <= len(tried) <= follow.DEAF_STREAMS


def test_a_followed_log_is_printed_once_though_every_connection_breaks(service, sweep, url, capfd):
    text = "".join(f"line {number}\n" for number in range(5000))
    path = service.log_path(sweep.sweep_id, sweep.trials[0].trial_id)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    finish(service, sweep.sweep_id)
    with breaking_proxy(url, after_bytes=80_000, times=3) as (proxy, _):
        follow.log(Client(proxy, SECRET), sweep.trials[0].trial_id)
    assert capfd.readouterr().out == text


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["data: a", "data: b", ""], [Message("message", "a\nb", "")]),
        (["event: x", "id: 7", "data:a", "", ": hm", "data: cut off"], [Message("x", "a", "7"), Message("", "", "")]),
        (["event: x", "", "data: y", ""], [Message("message", "y", "")]),
    ],
)
def test_messages_are_read_as_the_standard_says(lines, expected):
    assert list(messages(lines)) == expected


@contextmanager
def breaking_proxy(url: str, *, after_bytes: int, times: int = 4) -> Iterator[tuple[str, list[socket.socket]]]:
    """A door to `url` that cuts its first `times` connections after so many bytes of answers; and its connections."""
    host, port = url.removeprefix("http://").split(":")
    door = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def carry(source: socket.socket, sink: socket.socket, left: float) -> None:
        try:
            while left > 0 and (piece := source.recv(min(4096, int(min(left, 4096))))):
                sink.sendall(piece)
                left -= len(piece)
        except OSError:
            pass
        finally:
            for each in (source, sink):
                shut(each)

    def serve() -> None:
        while True:
            try:
                outside, _ = door.accept()
            except OSError:
                return
            inside = socket.create_connection((host, int(port)))
            connections.append(outside)
            limit = after_bytes if len(connections) <= times else float("inf")
            threading.Thread(target=carry, args=(outside, inside, float("inf")), daemon=True).start()
            threading.Thread(target=carry, args=(inside, outside, limit), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}", connections
    finally:
        shut(door)
        door.close()


def shut(connection: socket.socket) -> None:
    """As a cable that is pulled: whoever reads from it sees its end."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
