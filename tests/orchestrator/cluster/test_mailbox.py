"""The promises of the mailbox, without Ray: it is plain asyncio."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from orchestrator.cluster import mailbox as mailbox_module
from orchestrator.cluster.mailbox import Mailbox
from orchestrator.cluster.messages import Command, Ended, Outcome, Reported, Verdict

pytestmark = pytest.mark.anyio
DONE = Ended(outcome=Outcome.DONE)
STOPPED = Ended(outcome=Outcome.STOPPED)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def command(trial_id: int) -> Command:
    return Command(trial_id=trial_id, config={}, directory="", checkpoints="")


def row(step: int) -> Reported:
    return Reported(step=step, metrics={"loss": 1.0})


async def soon(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start it, and let it come as far as it can."""
    task = asyncio.ensure_future(coroutine)
    await settle()
    return task


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def a_group(box: Mailbox, name: str = "slot-0", workers: int = 1) -> tuple[int, list[asyncio.Task[Any]]]:
    """A group whose workers wait for a command: its generation and their calls."""
    if name not in {slot.name for slot in await box.view()}:
        await box.open(name, workers)
    generation = await box.hello(name)
    return generation, [await soon(box.next_command(name, generation, rank, 100 + rank)) for rank in range(workers)]


async def test_a_slot_is_leased_only_when_every_worker_waits() -> None:
    box = Mailbox()
    await box.open("slot-0", 2)
    generation = await box.hello("slot-0")
    lease = await soon(box.lease(1))
    await soon(box.next_command("slot-0", generation, 0, 100))
    assert not lease.done()
    await soon(box.next_command("slot-0", generation, 1, 101))
    assert lease.done()


async def test_a_report_waits_for_its_decision_which_is_the_same_for_all_ranks() -> None:
    box = Mailbox()
    generation, workers = await a_group(box, workers=2)
    number, _ = await box.lease(1)
    happening = await soon(box.run(number, command(1)))
    assert [await worker for worker in workers] == [(number, command(1))] * 2
    leader = await soon(box.report("slot-0", generation, number, 0, row(10)))
    assert happening.result() == row(10)
    assert not leader.done()
    # The trial is given up before rank 1 has asked, and after rank 0 was told to go on
    await soon(box.go_on(number))
    await box.release(number)
    assert await leader is True
    assert await box.report("slot-0", generation, number, 1, row(10)) is True
    assert await box.report("slot-0", generation, number, 0, row(20)) is False
    assert await box.report("slot-0", generation, number, 1, row(20)) is False


async def test_a_released_slot_serves_the_next_trial_once_its_workers_are_back() -> None:
    box = Mailbox()
    generation, _ = await a_group(box)
    first, _ = await box.lease(1)
    await soon(box.run(first, command(1)))
    report = await soon(box.report("slot-0", generation, first, 0, row(10)))
    await box.release(first)
    assert await report is False
    second = await soon(box.lease(2))
    assert not second.done()
    assert await box.finish("slot-0", generation, first, 0, STOPPED) is Verdict.NEXT
    await soon(box.next_command("slot-0", generation, 0, 100))
    assert second.result()[0] > first


async def test_a_late_release_does_not_touch_the_next_lease() -> None:
    box = Mailbox()
    generation, _ = await a_group(box)
    first, _ = await box.lease(1)
    await soon(box.run(first, command(1)))
    await box.finish("slot-0", generation, first, 0, DONE)
    await soon(box.next_command("slot-0", generation, 0, 100))
    second, _ = await box.lease(2)
    happening = await soon(box.run(second, command(2)))
    await box.release(first)
    await soon(box.report("slot-0", generation, second, 0, row(10)))
    assert happening.result() == row(10)


async def test_a_trial_that_asks_again_gives_up_what_it_had() -> None:
    box = Mailbox()
    await a_group(box)
    await box.lease(1)
    again = await soon(box.lease(1))
    assert again.done(), "a lease without a command is free at once"
    await box.stop(1)
    assert (await soon(box.lease(2))).done()
    assert (await box.view())[0].trial_id == 2


async def test_nobody_takes_a_slot_for_a_trial_that_no_longer_asks() -> None:
    box = Mailbox()
    gone = await soon(box.lease(1))
    await box.stop(1)
    await a_group(box)
    assert gone.done()
    assert (await box.view())[0].trial_id is None


async def test_loss_of_the_workers_is_told_at_once_and_old_workers_give_way() -> None:
    box = Mailbox()
    generation, _ = await a_group(box)
    number, _ = await box.lease(1)
    happening = await soon(box.run(number, command(1)))
    await box.lost("slot-0", "killed")
    assert await happening == Ended(outcome=Outcome.LOST, reason="killed")
    assert await box.report("slot-0", generation, number, 0, row(10)) is False
    assert await box.finish("slot-0", generation, number, 0, DONE) is Verdict.RESTART
    assert await box.next_command("slot-0", generation, 0, 100) is Verdict.RESTART


async def test_a_restarted_group_is_known_by_its_hello_alone() -> None:
    box = Mailbox()
    await a_group(box)
    number, _ = await box.lease(1)
    happening = await soon(box.run(number, command(1)))
    await a_group(box)
    assert (await happening).outcome is Outcome.LOST
    assert (await box.view())[0].ready


async def test_a_failure_on_every_rank_leaves_the_group_alive() -> None:
    box = Mailbox()
    generation, _ = await a_group(box, workers=2)
    number, _ = await box.lease(1)
    happening = await soon(box.run(number, command(1)))
    failed = Ended(outcome=Outcome.FAILED, reason="ValueError: no")
    verdicts = [await soon(box.finish("slot-0", generation, number, rank, failed)) for rank in range(2)]
    assert [await verdict for verdict in verdicts] == [Verdict.NEXT, Verdict.NEXT]
    assert await happening == failed


async def test_a_failure_on_one_rank_restarts_the_group_after_a_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox_module, "ONE_RANK_GRACE_S", 0.01)
    box = Mailbox()
    generation, _ = await a_group(box, workers=2)
    number, _ = await box.lease(1)
    happening = await soon(box.run(number, command(1)))
    failed = Ended(outcome=Outcome.FAILED, reason="ValueError: no")
    assert await box.finish("slot-0", generation, number, 1, failed) is Verdict.RESTART
    assert await happening == failed
    assert not (await box.view())[0].ready


async def test_resize_retires_idle_slots_first_and_takes_back_busy_ones() -> None:
    box = Mailbox()
    assert await box.resize(2) == 2
    await a_group(box, "slot-0")
    number, _ = await box.lease(1)
    await soon(box.run(number, command(1)))
    await a_group(box, "slot-1")
    assert await box.resize(1) == 0
    assert {slot.name: slot.retiring for slot in await box.view()} == {"slot-0": False, "slot-1": True}
    assert await box.resize(0) == 0
    assert await box.resize(2) == 1, "the busy one stays after all; the idle one was told to leave"
    assert {slot.name: slot.retiring for slot in await box.view()} == {"slot-0": False, "slot-1": True}


async def test_workers_of_a_retired_slot_leave() -> None:
    box = Mailbox()
    _, workers = await a_group(box)
    await box.resize(0)
    assert [await worker for worker in workers] == [Verdict.LEAVE]


async def test_a_node_that_is_left_keeps_no_group_and_gets_none() -> None:
    box = Mailbox()
    verdicts = []
    for name, node in (("slot-0", "bad"), ("slot-1", "good")):
        await box.open(name, 1)
        generation = await box.hello(name)
        verdicts.append(await soon(box.next_command(name, generation, 0, 100, node)))
    number, started = await box.lease(1)
    assert started.nodes == ("bad",)
    await box.leave("bad")
    await settle()
    assert not verdicts[0].done(), "it may finish what it does"
    await box.release(number)
    await settle()
    assert verdicts[0].result() == Verdict.LEAVE
    assert not verdicts[1].done()
    assert await box.resize(2) == 1, "a group that left does not come back"
    await box.open("slot-2", 1)
    generation = await box.hello("slot-2")
    assert await box.next_command("slot-2", generation, 0, 101, "bad") == Verdict.LEAVE
    await box.come_back("bad")
    await box.open("slot-3", 1)
    generation = await box.hello("slot-3")
    waits = await soon(box.next_command("slot-3", generation, 0, 102, "bad"))
    await settle()
    assert not waits.done(), "a node that came back may be used again"
