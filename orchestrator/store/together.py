"""Group commit: what several threads ask for at the same time goes through in one transaction, in order of arrival."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import sqlalchemy as sa

from orchestrator.errors import OrchError, Unreachable
from orchestrator.store.database import Database

MOST_TOGETHER = 64

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class _Turn(Generic[Asked, Answer]):
    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.answer: Answer | Exception | None = None
        self.leads = False
        self.ready = threading.Event()


class Together(Generic[Asked, Answer]):
    """Waiting for the disk is most of a small transaction: those who come meanwhile share the next one.

    work: answers all of them inside one transaction, each with its answer or its refusal. If it raises, each is tried
    again in a transaction of its own.
    """

    def __init__(
        self, database: Database, work: Callable[[sa.Connection, Sequence[Asked]], Sequence[Answer | OrchError]]
    ) -> None:
        self._database, self._work = database, work
        self._lock = threading.Lock()
        self._waiting: list[_Turn[Asked, Answer]] = []
        self._led = False

    def do(self, asked: Asked) -> Answer:
        """Its answer, once it is committed. Raises its refusal, and what `Database.write` raises."""
        turn: _Turn[Asked, Answer] = _Turn(asked)
        with self._lock:
            self._waiting.append(turn)
            turn.leads, self._led = not self._led, True
        if not turn.leads:
            turn.ready.wait()
        if turn.leads:
            self._lead()
        if isinstance(turn.answer, Exception):
            raise turn.answer
        assert turn.answer is not None
        return turn.answer

    def _lead(self) -> None:
        """Answer those who wait; the first who comes too late for that leads the next."""
        with self._lock:
            batch, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
        self._answer(batch)
        with self._lock:
            following = self._waiting[:1]
            self._led = bool(following)
        for turn in following:
            turn.leads = True
        for turn in (*batch, *following):
            turn.ready.set()

    def _answer(self, batch: Sequence[_Turn[Asked, Answer]]) -> None:
        try:
            with self._database.write() as connection:
                answers = self._work(connection, [turn.asked for turn in batch])
            for turn, answer in zip(batch, answers, strict=True):
                turn.answer = answer
        except Exception as error:
            if len(batch) == 1 or isinstance(error, Unreachable):
                for turn in batch:
                    turn.answer = error
                return
            for turn in batch:
                self._answer([turn])
