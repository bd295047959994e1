"""Submissions at the same moment: each once, in one order, and none harmed by another's refusal."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.errors import Conflict
from orchestrator.records import Once
from orchestrator.store import Store
from orchestrator.store.accepting import Arrival, accept
from orchestrator.store.together import MOST_TOGETHER, Together
from tests.support.builders import NOW, a_sweep, some_trials

CLIENTS = 8
EACH = 12


def test_many_threads_submit_each_sweep_once_and_in_order(store: Store) -> None:
    together = threading.Barrier(CLIENTS)

    def submit(client: int) -> list[int]:
        together.wait(timeout=60)
        numbers = []
        for index in range(EACH):
            once = Once(key=f"{client}/{index}", content="x")
            sweep = a_sweep(name=f"c{client}-{index}", user=f"c{client}")
            first = store.sweeps.add_sweep(sweep, some_trials(2), now=NOW, once=once)
            again = store.sweeps.add_sweep(sweep, some_trials(2), now=NOW, once=once)
            assert first == again
            numbers.append(first.id)
        return numbers

    with ThreadPoolExecutor(CLIENTS) as pool:
        numbers = list(pool.map(submit, range(CLIENTS)))
    there = store.sweeps.open_sweeps()
    assert [sweep.id for sweep in there] == sorted(number for own in numbers for number in own)
    for client, own in enumerate(numbers):
        assert [sweep.id for sweep in there if sweep.user == f"c{client}"] == own
        assert [store.sweeps.sweep(number).name for number in own] == [f"c{client}-{index}" for index in range(EACH)]
    told = [event.sweep_id for event in store.sweeps.events() if event.what == "submitted"]
    assert told == [sweep.id for sweep in there]
    assert set(map(len, map(store.trials.trials, told))) == {2}


def test_one_batch_answers_each_by_itself(store: Store) -> None:
    def arrival(name: str, key: str | None, content: str = "x") -> Arrival:
        once = Once(key=key, content=content) if key else None
        return Arrival(a_sweep(name=name, project=name), some_trials(1), NOW, once)

    with store.database.write() as connection:
        (first, same, other, free), _ = accept(
            connection, [arrival("a", "k"), arrival("a", "k"), arrival("b", "k", "y"), arrival("c", None)]
        )
    assert first == same
    assert isinstance(other, Conflict)
    assert isinstance(free, int)
    with store.database.write() as connection:
        assert accept(connection, [arrival("a", "k")])[0] == [first]
    assert [sweep.name for sweep in store.sweeps.open_sweeps()] == ["a", "c"]


def test_what_fails_in_a_batch_fails_alone(store: Store) -> None:
    sizes: list[int] = []
    entered, go_on = threading.Event(), threading.Event()

    def work(_: object, asked: list[int]) -> list[int]:
        sizes.append(len(asked))
        entered.set()
        assert go_on.wait(timeout=60)
        return [10 // each for each in asked]

    group: Together[int, int] = Together(store.database, work)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(group.do, 1)
        assert entered.wait(timeout=60)
        later = [pool.submit(group.do, 2), pool.submit(group.do, 0)]
        while len(group._waiting) < len(later):
            assert not first.done()
        go_on.set()
        assert first.result(timeout=60) == 10
        assert later[0].result(timeout=60) == 5
        with pytest.raises(ZeroDivisionError):
            later[1].result(timeout=60)
    assert sizes == [1, 2, 1, 1]
    assert len(sizes) < MOST_TOGETHER
