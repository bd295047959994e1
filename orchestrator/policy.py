"""Who may run how many trials at once: a pure function of the queue, the pool and what each sweep still has to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.records import Capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one open sweep asks for.

    trials: how many trials it could run at once. cpus, gpus: of one trial, all workers together.
    started: it holds a place already; places are not taken away for newcomers of its own priority.
    """

    sweep_id: int
    name: str
    priority: int
    trials: int
    cpus: float
    gpus: float
    started: bool


@dataclass(frozen=True, slots=True)
class Allotment:
    """slots: trials that the sweep may run at once; 0 means that it waits, for the reason given."""

    slots: int
    reason: str


def allot(demands: Sequence[Demand], pool: Capacity) -> dict[int, Allotment]:
    """Divide the pool.

    In order of priority, then started before waiting, then age (the order given): first one trial for each sweep that
    fits, so that many share the pool; then one more for each in turn, until the pool or the work is used up.
    """
    order = sorted(demands, key=lambda d: (-d.priority, not d.started))
    free = _Pool(pool.cpus, pool.gpus)
    slots = {demand.sweep_id: 0 for demand in order}
    growing = True
    while growing:
        growing = False
        for demand in order:
            if slots[demand.sweep_id] < demand.trials and free.take(demand):
                slots[demand.sweep_id] += 1
                growing = True
    return {d.sweep_id: Allotment(slots[d.sweep_id], _reason(d, slots, order, free, pool)) for d in order}


class _Pool:
    """What is left while dividing."""

    def __init__(self, cpus: float, gpus: float) -> None:
        self.cpus, self.gpus = cpus, gpus

    def take(self, demand: Demand) -> bool:
        slack = 1e-9  # fractions of GPUs add up inexactly
        if demand.cpus > self.cpus + slack or demand.gpus > self.gpus + slack:
            return False
        self.cpus -= demand.cpus
        self.gpus -= demand.gpus
        return True


def _reason(demand: Demand, slots: dict[int, int], order: Sequence[Demand], free: _Pool, pool: Capacity) -> str:
    if slots[demand.sweep_id]:
        return ""
    needs = " and ".join(
        f"{amount:g} {unit}{'s' if amount != 1 else ''}"
        for amount, unit in ((demand.cpus, "CPU"), (demand.gpus, "GPU"))
        if amount
    )
    have = f"{free.cpus:g} of {pool.cpus:g} CPUs" + (f" and {free.gpus:g} of {pool.gpus:g} GPUs" if pool.gpus else "")
    ahead = [other.name for other in order[: order.index(demand)] if slots[other.sweep_id]]
    behind = f"; ahead of it: {', '.join(ahead[:5])}" + (" …" if len(ahead) > 5 else "") if ahead else ""
    return f"waits for {needs}; {have} are free{behind}"
