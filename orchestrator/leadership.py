"""Use case: of all coordinators on one database, one acts.

Leases with fencing numbers: Gray and Cheriton (SOSP 1989) for the lease; every write carries the number under which it
was decided, so that a coordinator that slept through its lease changes nothing when it wakes.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from datetime import datetime, timedelta

from orchestrator.errors import LeaseLost, Unreachable
from orchestrator.ports import Clock, LeaseStore
from orchestrator.processes import Process
from orchestrator.records import Lease

log = logging.getLogger(__name__)

LASTS = timedelta(seconds=10)
"""A holder that has not renewed its lease for so long, as seen by who waits for it, is taken for dead."""

RENEW_EVERY = LASTS / 4


class Leadership:
    """One coordinator's part in it.

    holder: who it is, for people and for `is_dead`. is_dead: whether a holder is known to be gone, which spares the
        wait; False where nobody can tell.
    """

    def __init__(
        self, leases: LeaseStore, clock: Clock, *, holder: str, is_dead: Callable[[str], bool] = lambda holder: False
    ) -> None:
        self._leases, self._clock, self._holder, self._is_dead = leases, clock, holder, is_dead
        self._number = 0
        self._renewed_at: datetime | None = None
        self._seen: tuple[Lease, datetime] | None = None

    def number(self) -> int:
        """Under which it acts; 0 while it does not."""
        return self._number

    def acts(self) -> bool:
        """Whether it acts: renews the lease when that is due, or takes it when nobody holds it. Raises Unreachable."""
        now = self._clock.now()
        if self._number:
            self._renew(now)
        if not self._number:
            self._try_to_take(now)
        return bool(self._number)

    def confirm(self) -> None:
        """Before an act that no transaction guards, by any thread. Raises LeaseLost if another one took over."""
        number = self._number
        try:
            self._leases.confirm(number)
        except LeaseLost:
            if number == self._number:  # the loop may have taken the lease again meanwhile
                self.lost()
            raise

    def lost(self) -> None:
        """A write was refused: another one took over."""
        if self._number:
            log.warning("another coordinator took over from number %d; standing by", self._number)
        self._number = 0

    def release(self) -> None:
        """On an orderly end: the next one need not wait. Raises nothing: silence tells the same, only later."""
        number, self._number = self._number, 0
        if number:
            try:
                self._leases.release(number)
            except Unreachable as error:
                log.info("%s", error)

    def _renew(self, now: datetime) -> None:
        due = self._renewed_at is None or not timedelta(0) <= now - self._renewed_at < RENEW_EVERY
        if not due:
            return
        if self._leases.renew(self._number, now=now):
            self._renewed_at = now
        else:
            self.lost()

    def _try_to_take(self, now: datetime) -> None:
        lease = self._leases.see()
        if self._seen is None or self._seen[0] != lease:
            if lease.holder and (self._seen is None or self._seen[0].number != lease.number):
                log.info("coordinator number %d (%s) holds the lease", lease.number, lease.holder)
            self._seen = (lease, now)
        silent = now - self._seen[1] >= LASTS
        if lease.holder and not silent and not self._is_dead(lease.holder):
            return
        taken = self._leases.take(lease, self._holder, now=now)
        if taken is not None:
            self._number, self._renewed_at, self._seen = taken.number, now, None
            end = "was silent" if silent else "is gone"
            before = f", after number {lease.number}, which {end}" if lease.holder else ""
            log.info("acting as coordinator number %d%s", taken.number, before)


def this_process() -> str:
    """A holder that others on this machine can tell dead from alive."""
    own = Process.own()
    return f"{socket.gethostname()} {own.pid} {own.started:.2f}"


def is_dead(holder: str) -> bool:
    """Whether a holder named by `this_process` ran on this machine and does no more."""
    host, *numbers = holder.split(" ")
    if host != socket.gethostname() or len(numbers) != 2:
        return False
    return not Process(int(numbers[0]), float(numbers[1])).is_alive
