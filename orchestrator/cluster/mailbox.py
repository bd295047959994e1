"""Where trials and slots meet: leases of slots, commands, reports, the decisions on them, and how commands end.

One per sweep, run as an async Ray actor; itself it is plain asyncio. A slot is one warm group of workers.

Rules that keep it honest:
- A lease has a number that is never used again, and every call names its own. What comes late, for a lease that is
  over, changes nothing for the next one.
- A group has a generation, and every call of a worker names its own. Workers of a group that was restarted are told to
  give way.
- A slot is leased only while every worker of its group waits for a command, so nobody is still busy with the last one.
- The decision on a report is made once and is the same for every rank: ranks that disagreed would wait for each other
  in a collective for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.cluster.messages import Command, Ended, Happening, Outcome, Reported, SlotView, Started, Verdict

ONE_RANK_GRACE_S = 5.0


@dataclass(slots=True, eq=False)
class _Lease:
    number: int
    trial_id: int
    slot: _Slot
    command: Command | None = None
    happenings: deque[Happening] = field(default_factory=deque)
    undecided: int | None = None
    decisions: dict[int, bool] = field(default_factory=dict)
    stopping: bool = False
    outcomes: dict[int, Ended] = field(default_factory=dict)
    over: bool = False

    def decide(self, go: bool) -> None:
        if self.undecided is not None:
            self.decisions[self.undecided] = go
            self.undecided = None


@dataclass(slots=True, eq=False)
class _Slot:
    name: str
    workers: int
    generation: int = 0
    pids: dict[int, int] = field(default_factory=dict)
    nodes: dict[int, str] = field(default_factory=dict)
    reservation: str = ""
    waiting: set[int] = field(default_factory=set)
    lease: _Lease | None = None
    retiring: bool = False
    for_good: bool = False
    losses_in_a_row: int = 0
    last_loss: str = ""

    @property
    def ready(self) -> bool:
        return len(self.waiting) == self.workers and self.lease is None and not self.retiring


class Mailbox:
    """See the module. Methods raise nothing on purpose; calls for what is gone answer as for what is over."""

    def __init__(self) -> None:
        self._slots: dict[str, _Slot] = {}
        self._leases: dict[int, _Lease] = {}
        self._last_number = 0
        self._asking: dict[int, int] = {}
        self._left: set[str] = set()
        self._changed = asyncio.Condition()

    # ---- the pool of groups

    async def resize(self, size: int) -> int:
        """Keep `size` slots: those too many retire when they are free, idle ones first. Returns how many lack."""
        kept = [slot for slot in self._slots.values() if not slot.retiring]
        going = [slot for slot in self._slots.values() if slot.retiring and not slot.for_good]
        for slot in sorted(kept, key=lambda slot: slot.lease is not None)[: max(len(kept) - size, 0)]:
            slot.retiring = True
        for slot in [slot for slot in going if slot.lease is not None][: max(size - len(kept), 0)]:
            slot.retiring = False
            kept.append(slot)
        await self._tell()
        return max(size - len(kept), 0)

    async def leave(self, node: str) -> None:
        """Groups with a worker on this node retire for good when they are free, and so do those that turn up there."""
        self._left.add(node)
        for slot in self._slots.values():
            self._retire_from(slot)
        await self._tell()

    async def come_back(self, node: str) -> None:
        """Groups that turn up on this node may stay."""
        self._left.discard(node)

    async def open(self, name: str, workers: int) -> None:
        """A group of `workers` is being started under this name."""
        self._slots[name] = _Slot(name, workers)

    async def lost(self, name: str, reason: str) -> None:
        """Workers of the group went away; Train starts it anew. What it was doing is LOST."""
        if slot := self._slots.get(name):
            slot.losses_in_a_row += 1
            slot.last_loss = reason
            self._new_generation(slot, reason)
            await self._tell()

    async def close(self, name: str, reason: str) -> str:
        """The group is no more. Returns the id of the placement group that it was in; "" if it never came up."""
        if slot := self._slots.pop(name, None):
            self._new_generation(slot, reason)
            await self._tell()
        return slot.reservation if slot else ""

    async def view(self) -> list[SlotView]:
        """All slots."""
        return [
            SlotView(
                name=slot.name,
                ready=slot.ready,
                retiring=slot.retiring,
                trial_id=slot.lease.trial_id if slot.lease else None,
                pids=dict(slot.pids),
                reservation=slot.reservation,
                losses_in_a_row=slot.losses_in_a_row,
                last_loss=slot.last_loss,
            )
            for slot in self._slots.values()
        ]

    # ---- trials

    async def lease(self, trial_id: int) -> tuple[int, Started]:
        """Wait for a free slot and take it. What the same trial asked for or leased before is given up."""
        await self.stop(trial_id)
        self._last_number += 1
        number = self._asking[trial_id] = self._last_number
        await self._until(
            lambda: (
                self._asking.get(trial_id) != number
                # Two groups must never train one trial, and the one before ends with its next report
                or (not self._busy_with(trial_id) and any(slot.ready for slot in self._slots.values()))
            )
        )
        if self._asking.get(trial_id) != number:
            # Whoever asked is gone: nobody would give the slot back
            return number, Started(where="")
        del self._asking[trial_id]
        slot = next(slot for slot in self._slots.values() if slot.ready)
        slot.lease = self._leases[number] = _Lease(number, trial_id, slot)
        pids = ", ".join(str(pid) for _, pid in sorted(slot.pids.items()))
        nodes = tuple(node for _, node in sorted(slot.nodes.items()))
        return number, Started(where=f"{slot.name}, pid {pids}", nodes=nodes)

    async def run(self, number: int, command: Command) -> Happening:
        """Hand a leased slot its command; wait for the first thing that happens."""
        if lease := self._leases.get(number):
            lease.command = command
            await self._tell()
        return await self._next(number)

    async def go_on(self, number: int) -> Happening:
        """Let the trial train on after its report; wait for the next thing that happens."""
        if lease := self._leases.get(number):
            lease.decide(True)
            await self._tell()
        return await self._next(number)

    async def release(self, number: int) -> None:
        """Give a lease up: a command that still runs stops at its next report. Safe to repeat."""
        if lease := self._leases.pop(number, None):
            lease.stopping = True
            lease.decide(False)
            if lease.command is None and lease.slot.lease is lease:
                lease.slot.lease = None
            await self._tell()

    async def stop(self, trial_id: int) -> None:
        """Give up whatever this trial has leased or asked for."""
        self._asking.pop(trial_id, None)
        for lease in [lease for lease in self._leases.values() if lease.trial_id == trial_id]:
            await self.release(lease.number)
        await self._tell()

    # ---- workers

    async def hello(self, name: str, reservation: str = "") -> int:
        """Rank 0 of a new group: returns its generation, which it shares with the other ranks.

        reservation: id of the placement group that all of them are in.
        """
        slot = self._slots.get(name)
        if slot is None:
            return -1
        self._new_generation(slot, "its workers were restarted")
        slot.reservation = reservation
        await self._tell()
        return slot.generation

    async def next_command(
        self, name: str, generation: int, rank: int, pid: int, node: str = ""
    ) -> tuple[int, Command] | Verdict:
        """Wait for a command; returns its lease, too. LEAVE: there will be none. node: id of the worker's."""
        slot = self._current(name, generation)
        if slot is None:
            return self._farewell(name)
        slot.pids[rank], slot.nodes[rank] = pid, node
        self._retire_from(slot)
        slot.waiting.add(rank)
        if len(slot.waiting) == slot.workers:
            slot.losses_in_a_row = 0
        await self._tell()
        await self._until(
            lambda: (
                self._current(name, generation) is None
                or (slot.lease is not None and slot.lease.command is not None)
                or (slot.lease is None and slot.retiring)
            )
        )
        lease = slot.lease
        if self._current(name, generation) is None or lease is None or lease.command is None:
            return self._farewell(name)
        slot.waiting.discard(rank)
        return lease.number, lease.command

    async def report(self, name: str, generation: int, number: int, rank: int, reported: Reported) -> bool:
        """Wait for the decision on this report: True to train on, False to stop."""
        slot = self._current(name, generation)
        lease = slot.lease if slot else None
        if lease is None or lease.number != number:
            return False
        if rank == 0:
            lease.undecided = reported.step
            if lease.stopping:
                lease.decide(False)
            lease.happenings.append(reported)
            await self._tell()
        await self._until(lambda: reported.step in lease.decisions or lease.over)
        return lease.decisions.get(reported.step, False)

    async def finish(self, name: str, generation: int, number: int, rank: int, ended: Ended) -> Verdict:
        """Wait until every rank has ended, so that the next command finds all of them free.

        A failure on one rank alone leaves the others blocked in a collective that nothing can abort (gloo): after a
        short grace the whole group is to be restarted.
        """
        slot = self._current(name, generation)
        lease = slot.lease if slot else None
        if slot is None or lease is None or lease.number != number:
            return Verdict.RESTART
        lease.outcomes[rank] = ended
        if len(lease.outcomes) == slot.workers:
            self._settle(lease)
        await self._tell()
        failed = ended.outcome in (Outcome.FAILED, Outcome.HOPELESS)
        try:
            await asyncio.wait_for(self._until(lambda: lease.over), ONE_RANK_GRACE_S if failed else None)
        except TimeoutError:
            self._settle(lease)
            self._new_generation(slot, "one rank failed alone")
            await self._tell()
        return Verdict.NEXT if self._current(name, generation) else Verdict.RESTART

    # ---- within

    async def _next(self, number: int) -> Happening:
        lease = self._leases.get(number)
        if lease is None:
            return Ended(outcome=Outcome.LOST, reason="its lease was taken away")
        await self._until(lambda: bool(lease.happenings) or lease.stopping)
        if lease.happenings:
            return lease.happenings.popleft()
        return Ended(outcome=Outcome.STOPPED)

    def _busy_with(self, trial_id: int) -> bool:
        return any(slot.lease is not None and slot.lease.trial_id == trial_id for slot in self._slots.values())

    def _settle(self, lease: _Lease) -> None:
        """Every rank that will has said how the command ended; a failure speaks for all."""
        ends = [lease.outcomes[rank] for rank in sorted(lease.outcomes)]
        bad = [ended for ended in ends if ended.outcome in (Outcome.FAILED, Outcome.HOPELESS)]
        lease.happenings.append(bad[0] if bad else ends[0])
        self._end(lease)

    def _retire_from(self, slot: _Slot) -> None:
        if self._left & set(slot.nodes.values()):
            slot.retiring = slot.for_good = True

    def _end(self, lease: _Lease) -> None:
        lease.over = True
        if lease.slot.lease is lease:
            lease.slot.lease = None

    def _new_generation(self, slot: _Slot, reason: str) -> None:
        slot.generation += 1
        slot.waiting.clear()
        slot.pids.clear()
        slot.nodes.clear()
        if slot.lease is not None:
            slot.lease.happenings.append(Ended(outcome=Outcome.LOST, reason=reason))
            self._end(slot.lease)

    def _current(self, name: str, generation: int) -> _Slot | None:
        slot = self._slots.get(name)
        return slot if slot is not None and slot.generation == generation else None

    def _farewell(self, name: str) -> Verdict:
        slot = self._slots.get(name)
        return Verdict.LEAVE if slot is None or slot.retiring else Verdict.RESTART

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
