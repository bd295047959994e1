"""A driver's way to the database: while that is away, calls wait for it instead of ending the driver.

A driver that ended would take its warm groups along, and with them the steps since each trial's last checkpoint; a
database server that is restarted is back in seconds.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from orchestrator.errors import IllegalMove, Unreachable

LOG = logging.getLogger(__name__)
PATIENCE_S = 600.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0

Store = TypeVar("Store")


def patient(store: Store) -> Store:
    """The same store; its methods raise Unreachable only after ten minutes in a row without an answer."""
    return cast(Store, _Patient(store))


class _Patient:
    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._store, name)

        @functools.wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            return self._until_answered(method, arguments, named)

        return call

    def _until_answered(self, method: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        began, wait_s = time.monotonic(), FIRST_WAIT_S
        asked_before = False
        while True:
            try:
                return method(*arguments, **named)
            except Unreachable as error:
                if time.monotonic() - began > PATIENCE_S:
                    raise
                if not asked_before:
                    LOG.warning("waiting: %s", error)
                asked_before = True
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            except IllegalMove:
                # The move went through before, and its answer was lost: a transaction is not undone by a connection
                # that is cut behind it. All that moves a trial names it first, and answers with it
                if not asked_before:
                    raise
                return self._store.trial(arguments[0])
