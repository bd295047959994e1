"""Why a sweep waits: one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.policy.admission import Admission
from orchestrator.policy.demand import SLACK, Allotment, Demand, Room, Rules
from orchestrator.policy.division import Division
from orchestrator.records import Capacity

NAMED = 5
"""So many of the sweeps ahead are named."""


def explain(
    demands: Sequence[Demand], pool: Capacity, division: Division, admission: Admission, rules: Rules
) -> dict[int, Allotment]:
    """Every sweep's slots, and the reason of each that has none."""
    sentences = _Sentences(pool, division, admission, rules)
    return {
        demand.sweep_id: Allotment(admission.slots[demand.sweep_id], "")
        if demand.sweep_id in admission.slots
        else sentences.of(demand)
        for demand in demands
    }


class _Sentences:
    """Sweeps of one shape and priority wait for the same reason: it is worded once."""

    def __init__(self, pool: Capacity, division: Division, admission: Admission, rules: Rules) -> None:
        self._pool, self._admission, self._rules = pool, admission, rules
        self._ahead = [demand for demand in division.line if demand.sweep_id in admission.slots]
        self._known: dict[tuple[int, float, float, str], Allotment] = {}
        self._own = {*admission.victims, admission.head.sweep_id if admission.head else 0}

    def of(self, demand: Demand) -> Allotment:
        """Why it has no slot."""
        if demand.stopping or not demand.trials or demand.sweep_id in self._own:
            return Allotment(0, self._its_own(demand))
        project = demand.project if self._rules.quotas else ""
        key = (demand.priority, demand.cpus, demand.gpus, project)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = Allotment(0, self._worded(demand))
        return known

    def _its_own(self, demand: Demand) -> str:
        by = self._admission.victims.get(demand.sweep_id)
        if by is not None:
            return f"preempted by {by.name} of priority {by.priority}"
        return "its driver is on its way out" if demand.stopping else self._worded(demand)

    def _worded(self, demand: Demand) -> str:
        needs = " and ".join(
            f"{amount:g} {unit}{'s' if amount != 1 else ''}"
            for amount, unit in ((demand.cpus, "CPU"), (demand.gpus, "GPU"))
            if amount
        )
        needs += f" of pool {demand.pool}" if demand.pool else ""
        pool, free, head = self._pool, self._admission.free, self._admission.head
        if not Room(pool.cpus, pool.gpus).fits(demand):
            return f"waits for {needs}; the whole pool has {_amounts(pool.cpus, pool.gpus, pool)}"
        if demand.homeless:
            return f"waits for {needs}; no node where it may run is large enough for one of its workers"
        quota, held = self._rules.quotas.get(demand.project), self._admission.held.get(demand.project, 0.0)
        if quota is not None and demand is not head and held + demand.share_of(pool) > quota + SLACK:
            return f"waits for {needs}; project {demand.project} holds its quota of {quota:.0%} of the pool"
        have = f"{max(free.cpus, 0):g} of {pool.cpus:g} CPUs" + (
            f" and {max(free.gpus, 0):g} of {pool.gpus:g} GPUs" if pool.gpus else ""
        )
        text = f"waits for {needs}; {have} are free"
        if head is not None:
            text += ", and room is kept for " + ("it" if head is demand else head.name)
        ahead = [other.name for other in self._ahead if other.priority >= demand.priority][: NAMED + 1]
        if ahead:
            text += f"; ahead of it: {', '.join(ahead[:NAMED])}" + (" …" if len(ahead) > NAMED else "")
        return text


def _amounts(cpus: float, gpus: float, pool: Capacity) -> str:
    return f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if pool.gpus else " and no GPU")
