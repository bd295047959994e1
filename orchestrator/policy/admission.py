"""From what runs now towards a division: nothing is promised twice, whatever still runs beyond its share.

Small work fills gaps without delaying the first trial that waits for room: the EASY rule of Lifka (1995), as Mu'alem
and Feitelson describe it (IEEE TPDS 12(6), 2001).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.policy.demand import SLACK, Demand, Room, Rules
from orchestrator.policy.division import Division
from orchestrator.records import Capacity


@dataclass(slots=True)
class Admission:
    """slots: by sweep, for now. victims: sweeps to stop, by whom. head: room is kept for it. free: of the pool.

    held: shares of the pool by project with a quota, what runs beyond its share and what is on its way out counted in.
    """

    slots: dict[int, int]
    victims: dict[int, Demand]
    free: Room
    head: Demand | None = None
    held: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Kept:
    """Room kept for the head: until `until_s` from now it may be lent, and `spare` will be left beside it then."""

    until_s: float
    spare: Room


@dataclass(slots=True)
class _Work:
    demands: Sequence[Demand]
    pool: Capacity
    division: Division
    rules: Rules
    admission: Admission
    kept: _Kept | None = None
    stopping: list[Demand] = field(default_factory=list)

    def take(self, demand: Demand, lasts_s: float) -> bool:
        """Take room for one more trial, if that is free and does not delay the head."""
        free = self.admission.free
        if not free.fits(demand) or not self.within_quota(demand):
            return False
        if self.kept is not None and lasts_s > self.kept.until_s:
            if not self.kept.spare.fits(demand):
                return False
            self.kept.spare.take(demand)
        self.hold(demand, 1)
        self.admission.slots[demand.sweep_id] = self.admission.slots.get(demand.sweep_id, 0) + 1
        return True

    def hold(self, demand: Demand, trials: int) -> None:
        """So many trials of it take room and count against its project's quota."""
        self.admission.free.take(demand, trials)
        if demand.project in self.rules.quotas:
            held = self.admission.held.get(demand.project, 0.0)
            self.admission.held[demand.project] = held + trials * demand.share_of(self.pool)

    def within_quota(self, demand: Demand, leaving: Sequence[Demand] = ()) -> bool:
        """Its project may hold one more trial of it, once these have left."""
        quota = self.rules.quotas.get(demand.project)
        if quota is None:
            return True
        held = self.admission.held.get(demand.project, 0.0)
        held -= sum(each.held * each.share_of(self.pool) for each in leaving if each.project == demand.project)
        return held + demand.share_of(self.pool) <= quota + SLACK


def admit(demands: Sequence[Demand], pool: Capacity, division: Division, rules: Rules) -> Admission:
    """Slots that can be given now.

    Shares shrink at once in number, but what runs beyond them is held until it ends. In order: first trials of sweeps
    that wait, growth of those that run, then whatever else fits into gaps.
    """
    admission = Admission({}, dict(division.victims), Room(pool.cpus, pool.gpus))
    work = _Work(demands, pool, division, rules, admission)
    _keep(work)
    waiting = [demand for demand in division.line if not demand.started]
    for demand in waiting:
        due = demand.sweep_id in division.slots
        if due and work.take(demand, demand.duration_s(1, rules)):
            continue
        if not work.within_quota(demand, work.stopping):  # it waits for its own project, and nobody else can help
            continue
        stops = (due or demand is division.head) and work.kept is None and _choose_victims(work, demand)
        if work.kept is None and (stops or work.stopping or demand.waited_s >= rules.patience_s):
            admission.head = demand
            work.kept = _keep_room(work, demand)
    for demand in division.line:
        target = division.slots.get(demand.sweep_id, 0)
        while 0 < admission.slots.get(demand.sweep_id, 0) < target:
            if not work.take(demand, demand.trial_s or rules.guess_s):
                break
    if admission.head is not None or any(demand.sweep_id not in admission.slots for demand in waiting):
        _fill_gaps(work)
    return admission


def _keep(work: _Work) -> None:
    """What runs stays, at most at its share; victims get nothing, but hold what they have until they are gone."""
    for demand in work.demands:
        if not demand.started and not demand.stopping:
            continue
        work.hold(demand, demand.held)
        if demand.stopping or demand.sweep_id in work.admission.victims:
            work.stopping.append(demand)
        elif demand.trials:
            target = work.division.slots.get(demand.sweep_id, 0)
            work.admission.slots[demand.sweep_id] = max(1, min(target, demand.held))


def _may_stop(work: _Work, demand: Demand, other: Demand) -> bool:
    """A lower priority gives way, and what overtook the head. Who waited long before gives way to none."""
    if other.level(work.rules) >= demand.level(work.rules):
        return False
    if other.priority < demand.priority:
        return True
    waited_longer = demand is work.division.head and other.waited_s + work.rules.overdue_s <= demand.waited_s
    return waited_longer and (demand is work.division.urgent or work.division.comes_after(other, demand))


def _choose_victims(work: _Work, demand: Demand) -> bool:
    """Stop sweeps for one that waits: the lowest and youngest first, none if all were too few."""
    room = Room(work.admission.free.cpus, work.admission.free.gpus)
    for leaving in work.stopping:
        room.give(leaving, leaving.held)
    lower = [
        other
        for other in work.demands
        if other.started and other.sweep_id in work.admission.slots and _may_stop(work, demand, other)
    ]
    chosen: list[Demand] = []
    lower.reverse()
    for other in sorted(lower, key=lambda each: each.priority):
        if room.fits(demand):
            break
        if (other.cpus and demand.cpus > room.cpus) or (other.gpus and demand.gpus > room.gpus):
            room.give(other, other.held)
            chosen.append(other)
    if not chosen or not room.fits(demand):
        return False
    for victim in chosen:
        work.admission.victims[victim.sweep_id] = demand
        del work.admission.slots[victim.sweep_id]
    work.stopping += chosen
    return True


def _keep_room(work: _Work, head: Demand) -> _Kept:
    """When the head is expected to find room, and what will be free beside it."""
    room = Room(work.admission.free.cpus, work.admission.free.gpus)
    until_s = 0.0
    for at_s, demand in sorted(_releases(work), key=lambda release: release[0]):
        if room.fits(head):
            break
        room.give(demand)
        until_s = at_s
    if not room.fits(head):
        until_s = math.inf
    room.take(head)
    return _Kept(until_s, room)


def _releases(work: _Work) -> list[tuple[float, Demand]]:
    """(seconds from now, whose) for each trial's worth of room that is expected to come free."""
    found: list[tuple[float, Demand]] = []
    for demand in work.demands:
        kept = work.admission.slots.get(demand.sweep_id, 0)
        if not kept and not demand.started and not demand.stopping:
            continue
        ends, held = sorted(demand.ends_s), max(demand.held, kept)
        for index in range(held):
            if not kept:
                at_s = 0.0
            elif index < held - kept:
                at_s = ends[index] if index < len(ends) else work.rules.guess_s
            else:
                at_s = demand.duration_s(kept, work.rules)
            found.append((at_s, demand))
    return found


def _fill_gaps(work: _Work) -> None:
    """What is free beside, or until, what waits for more room than there is."""
    free, slots, kept = work.admission.free, work.admission.slots, work.kept
    barred = {*work.admission.victims, work.admission.head.sweep_id if work.admission.head else 0}
    for demand in work.division.order:
        if demand.gpus > free.gpus + SLACK or demand.cpus > free.cpus + SLACK:
            continue
        # What is to shrink would take back what it holds already, and with that keep free room from all others
        if demand.sweep_id in barred or 0 < slots.get(demand.sweep_id, 0) < demand.held:
            continue
        lasts_s = demand.trial_s or work.rules.guess_s
        # Not even one trial of it: of thousands that wait, how long the whole would last is then not asked
        if kept is not None and lasts_s > kept.until_s and not kept.spare.fits(demand):
            continue
        if demand.sweep_id not in slots and not work.take(demand, demand.duration_s(1, work.rules)):
            continue
        while slots[demand.sweep_id] < demand.trials and work.take(demand, lasts_s):
            pass
