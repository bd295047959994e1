"""Webhooks: who is told what, once it arrived no more, and never at an address that is not public."""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from orchestrator.errors import BadInput
from orchestrator.lifecycle import Actor, SweepState, TrialState
from orchestrator.notify.addresses import Allowed, Refused, resolve
from orchestrator.notify.notifier import MOST_TRIES, Notifier
from orchestrator.notify.webhook import Failed, Webhook
from orchestrator.records import NewDelivery
from orchestrator.spec.model import SweepSpec
from orchestrator.spec.notify import redacted
from orchestrator.store import Store
from tests.support.builders import NOW, a_report, a_sweep, some_trials
from tests.support.clock import FakeClock

HERE = Allowed.parse(["127.0.0.0/8"])


class Hook:
    """A real web server that keeps what it was told. answers: status of the next ones; 200 after those."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.answers: list[int] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = hook.answers.pop(0) if hook.answers else 200
                if status == 200:
                    hook.told.append(body)
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", hook.url)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


def notifier(store: Store, clock: FakeClock, allowed: Allowed = HERE, **options: Any) -> Notifier:
    made = Notifier(
        store.sweeps, store.trials, store.deliveries, Webhook(allowed), clock, chance=lambda: 1.0, **options
    )
    made.read()  # what was before is nobody's news
    return made


def run_sweep(store: Store, notify: dict[str, Any] | None, to: SweepState = SweepState.SUCCEEDED) -> None:
    """Three trials that end with 3, 2 and 4 bits; the third fails in the end where the sweep fails."""
    spec = {"seeds": [0], "notify": notify}
    sweep = store.sweeps.add_sweep(a_sweep(spec=spec), some_trials(3), now=NOW)
    for state in (SweepState.STARTING, SweepState.RUNNING):
        sweep = store.sweeps.move_sweep(sweep, state, actor=Actor.COORDINATOR, reason="", now=NOW)
    for place, (trial, bits) in enumerate(zip(store.trials.trials(sweep.id), (3.0, 2.0, 4.0), strict=True)):
        store.trials.start_trial(trial.id, now=NOW)
        store.trials.record([a_report(trial.id, 1, val_bpb=bits)])
        failed = to is SweepState.FAILED and place == 2
        end = TrialState.FAILED if failed else TrialState.SUCCEEDED
        ended = NOW + timedelta(seconds=place)
        store.trials.end_trial(trial.id, end, reason="out of memory" if failed else "", now=ended)
    store.sweeps.move_sweep(sweep, to, actor=Actor.COORDINATOR, reason="because", now=NOW)


def carry(carrier: Notifier) -> int:
    carrier.read()
    return carrier.send()


def test_a_sweep_tells_of_each_new_best_and_of_its_end(store, clock, hook):
    carrier = notifier(store, clock)
    run_sweep(store, {"urls": [hook.url]})
    assert carry(carrier) == 3
    told = sorted(hook.told, key=lambda message: message["event_id"])
    assert [message["kind"] for message in told] == ["best", "best", "end"]
    assert [message.get("value") for message in told] == [3.0, 2.0, None]
    assert told[1]["text"].startswith("New best of sweep 1 (routing): val_bpb 2 by trial 2 (model.router.name = topk")
    assert told[2]["text"] == "Sweep 1 (routing, project moe) succeeded: because"
    assert (told[2]["project"], told[2]["state"], told[2]["user"]) == ("moe", "succeeded", "ada")
    assert carry(carrier) == 0
    assert store.deliveries.size() == 0


def test_only_what_was_asked_for_is_told_and_a_setting_hears_of_every_sweep(store, clock, hook):
    carrier = notifier(store, clock, everywhere=[f"{hook.url}?all"])
    run_sweep(store, {"urls": [hook.url], "on": ["failure"]}, SweepState.FAILED)
    run_sweep(store, None)
    carry(carrier)
    kinds = [message["kind"] for message in hook.told]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"failure": 4, "best": 4, "end": 1}
    [trial] = {message["text"] for message in hook.told if "trial_id" in message and message["kind"] == "failure"}
    assert trial == "Trial 3 of sweep 1 (routing) failed: out of memory"


def test_what_does_not_arrive_is_tried_again_later_and_less_and_less_often(store, clock, hook):
    carrier = notifier(store, clock)
    hook.answers = [500, 302, 429]
    run_sweep(store, {"urls": [hook.url], "on": ["end"]})
    waits = []
    for _ in range(3):
        assert carry(carrier) == 0
        assert carry(carrier) == 0, "it is not due yet"
        [waiting] = store.deliveries.due(now=NOW + timedelta(days=1), limit=10)
        waits.append((waiting.due_at - clock.now()).total_seconds())
        clock.advance(seconds=waits[-1])
    assert carry(carrier) == 1
    assert waits == [2.0, 4.0, 8.0]
    assert [message["kind"] for message in hook.told] == ["end"]


def test_one_that_never_arrives_is_given_up(store, clock, hook, caplog):
    carrier = notifier(store, clock)
    hook.answers = [500] * 100
    run_sweep(store, {"urls": [hook.url], "on": ["end"]})
    for _ in range(MOST_TRIES):
        assert store.deliveries.size() == 1 or not hook.told
        carry(carrier)
        clock.advance(hours=1)
    assert store.deliveries.size() == 0
    assert len(hook.answers) == 100 - MOST_TRIES
    assert "is given up after 12 tries: it answered 500" in caplog.text


def test_a_crash_after_the_call_and_before_its_record_loses_nothing(store, clock, hook, monkeypatch):
    carrier = notifier(store, clock)
    run_sweep(store, {"urls": [hook.url], "on": ["end"]})
    with monkeypatch.context() as patch:
        patch.setattr(type(store.deliveries), "done", lambda *_: (_ for _ in ()).throw(RuntimeError("power cut")))
        with pytest.raises(RuntimeError, match="power cut"):
            carry(carrier)
    assert carry(notifier(store, clock)) == 1
    assert len(hook.told) == 2
    assert len({message["event_id"] for message in hook.told}) == 1


def test_two_that_read_the_log_at_once_plan_each_call_once(store, clock, hook):
    one, other = notifier(store, clock), notifier(store, clock)
    run_sweep(store, {"urls": [hook.url], "on": ["end"]})
    seen = store.deliveries.bookmark()
    one.read()
    store.deliveries.plan([], seen=seen, upto=seen + 1, now=NOW)
    other.read()
    assert store.deliveries.size() == 1
    assert store.deliveries.bookmark() == store.sweeps.events()[-1].id


class Told(Webhook):
    """Keeps where calls went; those to hosts whose name begins with `dead` fail."""

    def __init__(self) -> None:
        super().__init__(HERE)
        self.hosts: list[str] = []

    def call(self, url: str, payload: Mapping[str, Any]) -> None:
        host = url.split("/")[2]
        self.hosts.append(host)
        if host.startswith("dead"):
            raise Failed("it took too long")


def plan_calls(store: Store, urls: list[str]) -> None:
    if not store.sweeps.sweeps():
        store.sweeps.add_sweep(a_sweep(), some_trials(1), now=NOW)
    seen = store.deliveries.bookmark()
    news = [NewDelivery(sweep_id=1, url=url, payload={}) for url in urls]
    store.deliveries.plan(news, seen=seen, upto=seen + 1, now=NOW)


def test_a_host_that_does_not_answer_holds_up_nobody_else(store, clock):
    webhook = Told()
    carrier = Notifier(store.sweeps, store.trials, store.deliveries, webhook, clock)
    plan_calls(store, [f"http://dead/{n % 3}" for n in range(1200)] + [f"http://live/{n}" for n in range(40)])
    rounds = []
    for _ in range(4):
        carrier.send()
        rounds.append((len(webhook.hosts), webhook.hosts.count("live")))
        webhook.hosts.clear()
    assert rounds == [(16, 8), (16, 12), (16, 12), (16, 8)], "few at a time, and fewer for one that failed"
    plan_calls(store, ["http://live/again"])
    assert carrier.send() == 1
    assert webhook.hosts.count("dead") == 15


def test_of_many_hosts_that_do_not_answer_each_is_tried_and_none_holds_up_others(store, clock):
    webhook = Told()
    carrier = Notifier(store.sweeps, store.trials, store.deliveries, webhook, clock)
    plan_calls(store, [f"http://dead{n}/" for n in range(40) for _ in range(30)])
    for _ in range(3):
        carrier.send()
        clock.advance(seconds=1)
    assert len(set(webhook.hosts)) == 40
    plan_calls(store, ["http://live/"])
    assert carrier.send() == 1


def test_of_hosts_without_end_that_do_not_answer_the_latest_are_remembered(store, clock, monkeypatch):
    monkeypatch.setattr("orchestrator.notify.notifier.MOST_FAILING", 20)
    carrier = Notifier(store.sweeps, store.trials, store.deliveries, Told(), clock)
    plan_calls(store, [f"http://dead{n}/" for n in range(90)])
    while carrier._round(store.deliveries.due(now=clock.now(), limit=1000)):
        carrier.send()
        clock.advance(seconds=0.01)
    assert len(carrier._failing) == 20


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:0:0:0:0:80ff:fffe",
        "64:ff9b::7f00:1", "64:ff9b::a83f:8110", "64:ff9b:1::1", "64:ff9b:1::7f00:1", "64:ff9b:1:ffff::a00:1",
        "fec0::1", "feff::1", "::127.0.0.1", "::10.0.0.1", "::ffff:0:127.0.0.1", "::ffff:0:169.254.169.254",
        "168.63.129.16", "::ffff:168.63.129.16", "2002:a83f:8110::",
    ],
)  # fmt: skip
def test_no_webhook_goes_to_an_address_that_is_not_public(address):
    parsed = ipaddress.ip_address(address)
    assert not Allowed().permits("hooks.example", parsed)
    assert Allowed.parse(["hooks.example"]).permits("Hooks.Example", parsed)
    assert Allowed.parse([address]).permits("other.example", parsed)


def test_public_addresses_may_be_called():
    for address in ("93.184.215.14", "168.63.129.17", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e"):
        assert Allowed().permits("hooks.example", ipaddress.ip_address(address))


def test_a_name_that_has_one_forbidden_address_is_refused_and_the_checked_one_is_used():
    def look_up(*addresses: str):
        return lambda *_, **__: [(2, 1, 6, "", (address, 443)) for address in addresses]

    assert resolve("hooks.example", 443, Allowed(), look_up("93.184.215.14")) == "93.184.215.14"
    with pytest.raises(Refused, match=r"do not go to hooks.example \(10.0.0.1\).*ORCH_WEBHOOK_ALLOW"):
        resolve("hooks.example", 443, Allowed(), look_up("93.184.215.14", "10.0.0.1"))
    with pytest.raises(BadInput, match=r"10\.0\.0\.0/99"):
        Allowed.parse(["10.0.0.0/99"])


def test_a_name_is_looked_up_once_so_that_it_cannot_mean_another_address_later(hook, monkeypatch):
    port, answers = hook.server.server_address[1], ["127.0.0.1"]
    monkeypatch.setattr(
        "orchestrator.notify.addresses.resolve.__defaults__",
        (lambda *_, **__: [(2, 1, 6, "", (answers.pop(0), port))],),
    )
    Webhook(HERE).call(f"http://rebinding.example:{port}/hook", {"text": "hello"})
    assert hook.told == [{"text": "hello"}]
    assert answers == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://localhost/", "http://[::1]/", "http://2130706433/"])
def test_loopback_is_refused_however_it_is_written(url):
    with pytest.raises(Refused):
        Webhook(Allowed()).call(url, {})


def test_a_server_that_answers_in_drops_is_given_up_in_time():
    door = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        connection, _ = door.accept()
        with connection:
            try:
                while True:
                    connection.sendall(b"H")
                    stop.wait(0.02)
            except OSError:
                return

    stop = threading.Event()
    threading.Thread(target=drip, daemon=True).start()
    with pytest.raises(Failed), door:
        Webhook(HERE, timeout_s=0.3).call(f"http://127.0.0.1:{door.getsockname()[1]}/", {})


def test_the_sweep_file_takes_an_address_a_list_or_a_section():
    base = {"name": "a"}
    url = "https://hooks.slack.com/services/T/B/x"
    everything = ["end", "failure", "best"]
    for notify in (url, [url], {"urls": [url]}):
        spec = SweepSpec.model_validate(base | {"notify": notify})
        assert spec.model_dump(mode="json")["notify"] == {"urls": [url], "on": everything}
    for wrong in ("ftp://x", "file:///etc/passwd", {"urls": [url], "on": ["start"]}, []):
        with pytest.raises(ValueError):
            SweepSpec.model_validate(base | {"notify": wrong})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("notify: https://hooks.slack.com/services/T/B/x\n", "notify: https://hooks.slack.com/...\n"),
        ("urls: [https://a.b/x, http://c:80/y?z]}", "urls: [https://a.b/..., http://c:80/...]}"),
        ("""["https://a.b/x'y,z","https://c"],"on":[]""", '["https://a.b/...","https://c/..."],"on":[]'),
        ("- 'https://me:word@a.b/x y'", "- 'https://a.b/...'"),
        (r'- "HTTPS:\/\/a.b\/x"', r'- "HTTPS:\/\/a.b/..."'),
        ("# notify: https://a.b?token=x#y", "# notify: https://a.b/..."),
        ("name: a  # no address: https", "name: a  # no address: https"),
    ],
)  # fmt: skip
def test_of_web_addresses_in_a_sweep_file_the_host_alone_is_shown(text, shown):
    assert redacted(text) == shown
    assert redacted(shown) == shown
