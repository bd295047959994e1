"""Processes that do the same thing at the same moment. Kept for the whole test run: each takes a second to start."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

SIZE = 3
PATIENCE_S = 60


class Crew:
    """`SIZE` processes of their own, with nothing inherited."""

    def __init__(self, pool: ProcessPoolExecutor, barrier: Any) -> None:
        self._pool = pool
        self._barrier = barrier

    def start(self, function: Callable[..., Any], *arguments: tuple[Any, ...]) -> list[Future[Any]]:
        """Run `function(*arguments[i], barrier)` in each process; `barrier` lets them go on together."""
        assert len(arguments) == SIZE
        return [self._pool.submit(function, *each, self._barrier) for each in arguments]


@contextmanager
def gathered_crew() -> Iterator[Crew]:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(SIZE, mp_context=context) as pool:
        yield Crew(pool, manager.Barrier(SIZE, timeout=PATIENCE_S))
