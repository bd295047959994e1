"""Carries news from the audit log to webhooks: written down with the place in the log first, sent afterwards.

A crash between the two loses nothing; one between a call and its record sends that call again, under the same
`event_id`.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from orchestrator.errors import LeaseLost, NotFound, Unreachable
from orchestrator.notify import messages
from orchestrator.notify.addresses import Refused
from orchestrator.notify.messages import Kind
from orchestrator.notify.webhook import Failed, Webhook
from orchestrator.ports import Clock, Deliveries, SweepStore, TrialStore
from orchestrator.records import Delivery, Event, NewDelivery, Sweep

log = logging.getLogger(__name__)

IDLE_S = 1.0
AWAY_S = 5.0
PAGE = 1000
AT_ONCE = 8
A_ROUND = 2 * AT_ONCE
"""Calls: a round lasts twice the time that one may take, and then the log is read again."""
FOR_FAILING = AT_ONCE // 2
"""Places of a round that are kept for hosts which failed last, and are all that they get while others wait."""
MOST_FAILING = 1000
"""Hosts: sweep files name them as they like, so those that failed longest ago are forgotten beyond it."""
FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 900.0
MOST_TRIES = 12
"""The waits between them add up to an hour and a half: then a call is given up, with a line in the log."""
ALL: tuple[Kind, ...] = ("end", "failure", "best")


class Notifier:
    """everywhere: webhooks that hear of every sweep. acts: whether this coordinator is the one that acts."""

    def __init__(
        self,
        sweeps: SweepStore,
        trials: TrialStore,
        deliveries: Deliveries,
        webhook: Webhook,
        clock: Clock,
        *,
        everywhere: Sequence[str] = (),
        chance: Callable[[], float] = random.random,
        acts: Callable[[], bool] = lambda: True,
    ) -> None:
        self._sweeps, self._trials, self._deliveries = sweeps, trials, deliveries
        self._webhook, self._clock, self._everywhere = webhook, clock, everywhere
        self._chance, self._acts = chance, acts
        self._failing: dict[str, datetime] = {}

    def run(self, stop: threading.Event) -> None:
        """Carry until `stop` is set. Nothing that goes wrong ends it."""
        while not stop.is_set():
            pause = IDLE_S
            try:
                if self._acts() and self.read() + self.send():
                    pause = 0.0
            except LeaseLost:
                pause = AWAY_S
            except Unreachable as error:
                log.debug("%s", error)
                pause = AWAY_S
            except Exception:
                log.exception("webhooks could not be served; what they miss is kept")
                pause = AWAY_S
            stop.wait(pause)

    def read(self) -> int:
        """Write down who is to be told of the next page of the log. Returns its length."""
        seen = self._deliveries.bookmark()
        events = self._sweeps.events(after=seen, limit=PAGE)
        if events:
            news = [delivery for event in events for delivery in self._news(event)]
            self._deliveries.plan(news, seen=seen, upto=events[-1].id, now=self._clock.now())
        return len(events)

    def send(self) -> int:
        """Try a round of the calls that are due. Returns how many arrived."""
        due = self._round(self._deliveries.due(now=self._clock.now(), limit=PAGE))
        if not due:
            return 0
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook") as pool:
            return sum(pool.map(self._send, due))

    def wait_s(self, tries: int) -> float:
        """How long to wait, in seconds, after so many tries. Half of it by chance, so that retries spread."""
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(tries - 1, 16))
        return longest * (0.5 + 0.5 * self._chance())

    def _round(self, due: Sequence[Delivery]) -> list[Delivery]:
        """A few of them: hosts take turns, so that one which does not answer holds up nobody but itself."""
        latest = sorted(self._failing.items(), key=lambda each: each[1])[-MOST_FAILING:]
        self._failing = dict(latest)
        places: Counter[str] = Counter()
        turns: list[tuple[int, str, Delivery]] = []
        for delivery in due:
            host = _host(delivery)
            turns.append((places[host], host, delivery))
            places[host] += 1
        answering = sorted((turn for turn in turns if turn[1] not in self._failing), key=lambda turn: turn[0])
        failing = [(place, self._failing[host], each) for place, host, each in turns if host in self._failing]
        # Of hosts that fail, the one that was tried longest ago is first
        failing.sort(key=lambda turn: turn[:2])
        late = failing[: max(FOR_FAILING, A_ROUND - len(answering))]
        return [turn[-1] for turn in (*answering[: A_ROUND - len(late)], *late)]

    def _send(self, delivery: Delivery) -> bool:
        tries, host = delivery.tries + 1, _host(delivery)
        try:
            self._webhook.call(delivery.url, delivery.payload)
        except Refused as error:
            log.warning("sweep %d: %s", delivery.sweep_id, error)
        except Failed as error:
            self._failing[host] = self._clock.now()
            if tries < MOST_TRIES:
                due_at = self._clock.now() + timedelta(seconds=self.wait_s(tries))
                self._deliveries.put_off(delivery.id, tries=tries, due_at=due_at)
                return False
            log.warning(
                "sweep %d: the webhook at %s is given up after %d tries: %s", delivery.sweep_id, host, tries, error
            )
        else:
            self._failing.pop(host, None)
            self._deliveries.done(delivery.id)
            return True
        self._deliveries.done(delivery.id)
        return False

    def _news(self, event: Event) -> Iterable[NewDelivery]:
        kinds = messages.kinds_of(event)
        if event.sweep_id is None or not kinds:
            return
        try:
            sweep = self._sweeps.sweep(event.sweep_id)
            for url, wanted in self._subscribers(sweep):
                kind = next((kind for kind in kinds if kind in wanted), None)
                payload = self._payload(kind, sweep, event) if kind else None
                if payload is not None:
                    yield NewDelivery(sweep_id=sweep.id, url=url, payload=payload)
        except NotFound:
            return  # it was deleted meanwhile: there is nothing to tell of

    def _subscribers(self, sweep: Sweep) -> Iterable[tuple[str, Sequence[str]]]:
        own = sweep.spec.get("notify") or {}
        yield from ((url, own.get("on", ALL)) for url in own.get("urls", ()))
        yield from ((url, ALL) for url in self._everywhere if url not in own.get("urls", ()))

    def _payload(self, kind: Kind, sweep: Sweep, event: Event) -> dict[str, Any] | None:
        if event.trial_id is None:
            return messages.sweep_message(kind, sweep, event)
        trial = self._trials.trial(event.trial_id)
        if kind == "failure":
            return messages.failure_message(sweep, trial, event)
        return messages.best_message(sweep, trial, event) if self._deliveries.is_best(trial, sweep) else None


def _host(delivery: Delivery) -> str:
    try:
        return urlsplit(delivery.url).hostname or ""
    except ValueError:
        return ""
