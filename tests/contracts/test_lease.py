"""What every LeaseStore promises: one holder, numbers that grow, and a fence that lets nobody else write."""

from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from orchestrator.errors import LeaseLost
from orchestrator.lifecycle import Actor, SweepState
from orchestrator.records import Usage
from orchestrator.store import Store, fenced
from tests.contracts import racers
from tests.support.builders import NOW, a_sweep, some_trials
from tests.support.crew import SIZE, Crew


def take(store: Store, holder: str = "a") -> int:
    taken = store.lease.take(store.lease.see(), holder, now=NOW)
    assert taken is not None
    return taken.number


def test_numbers_grow_with_each_holder_and_are_never_given_twice(store: Store) -> None:
    first = take(store)
    store.lease.release(first)
    assert (store.lease.see().holder, take(store, "b")) == ("", first + 1)
    assert store.lease.see().holder == "b"


def test_who_saw_it_before_it_changed_does_not_get_it(store: Store) -> None:
    nobody = store.lease.see()
    number = take(store)
    assert store.lease.take(nobody, "late", now=NOW) is None
    seen = store.lease.see()
    assert store.lease.renew(number, now=NOW)
    assert store.lease.take(seen, "late", now=NOW) is None
    assert store.lease.take(store.lease.see(), "in time", now=NOW) is not None
    assert not store.lease.renew(number, now=NOW)
    with pytest.raises(LeaseLost, match="number 1, acts no longer"):
        store.lease.confirm(number)


def test_a_holder_of_old_cannot_release_it(store: Store) -> None:
    old = take(store)
    take(store, "b")
    store.lease.release(old)
    assert store.lease.see().holder == "b"


def test_of_many_processes_one_takes_it(store: Store, database_url: str, crew: Crew) -> None:
    taking = crew.start(racers.race_for_the_lease, *[(database_url, str(i)) for i in range(SIZE)])
    assert sorted(each.result() for each in taking) == [False, False, True]
    assert store.lease.see().number == 1


def test_behind_the_fence_every_write_of_a_former_holder_is_refused_and_changes_nothing(store: Store) -> None:
    sweep = store.sweeps.add_sweep(a_sweep(), some_trials(2), now=NOW)
    own = fenced(store, lambda number=take(store): number)
    assert own.sweeps.open_sweeps() == [sweep]
    sweep = own.sweeps.move_sweep(sweep, SweepState.STARTING, actor=Actor.COORDINATOR, reason="", now=NOW, slots=1)
    take(store, "b")
    before = (store.sweeps.sweep(sweep.id), store.sweeps.events(), store.outbox.pending(), store.ledger.usage())
    for write in (
        lambda: own.sweeps.move_sweep(sweep, SweepState.RUNNING, actor=Actor.COORDINATOR, reason="", now=NOW),
        lambda: own.sweeps.allot(sweep.id, 0, "preempted"),
        lambda: own.sweeps.explain({sweep.id: "waits"}),
        lambda: own.ledger.charge([Usage(project="moe", user="ada", share=1.0, at=NOW)]),
        lambda: own.outbox.sent([item.id for item in store.outbox.pending()]),
        lambda: own.outbox.link_sweep(sweep.id, "run"),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert before == (store.sweeps.sweep(sweep.id), store.sweeps.events(), store.outbox.pending(), store.ledger.usage())
    store.sweeps.allot(sweep.id, 2, "people and drivers need no lease")


def test_a_write_that_has_begun_ends_before_another_one_takes_over(store: Store) -> None:
    number = take(store)
    sweep = store.sweeps.add_sweep(a_sweep(), [], now=NOW)
    own = fenced(store, lambda: number)
    with ThreadPoolExecutor(1) as pool:
        with own.database.write() as connection:
            taking = pool.submit(take, store, "b")
            assert not wait([taking], timeout=0.2).done
            connection.exec_driver_sql("UPDATE sweep SET reason = 'in time'")
        assert taking.result(timeout=30) == number + 1
    assert store.sweeps.sweep(sweep.id).reason == "in time"
