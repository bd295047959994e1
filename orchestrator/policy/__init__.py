"""Who may run how many trials at once: a pure function of the queue, the pool, past usage and the rules.

In two steps. `division` says what would be fair if all could be moved at once: sweeps of higher priority first; among
equals, one trial each and then more, always to the project, and in it to the user, that has and had least for its
weight. `admission` goes there from what runs now: shares shrink as trials end, grow into what is free, small work
fills gaps unless it would delay a big trial that waits, and what is of lower priority may be stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.places import pools_of
from orchestrator.policy.admission import admit
from orchestrator.policy.demand import Account, Allotment, Demand, Rules
from orchestrator.policy.division import divide
from orchestrator.policy.reasons import explain
from orchestrator.policy.usage import averaged
from orchestrator.records import Capacity

__all__ = ["Account", "Allotment", "Demand", "Rules", "allot", "averaged"]


NOTHING = Capacity(cpus=0, gpus=0, free_cpus=0, free_gpus=0, nodes=0)


def allot(
    demands: Sequence[Demand],
    pool: Capacity,
    usage: Mapping[Account, float] | None = None,
    rules: Rules | None = None,
) -> dict[int, Allotment]:
    """Slots for every sweep, and for each without any the reason in one sentence. Each named pool is divided by itself.

    Args:
        demands: in order of age, oldest first.
        pool: what the cluster has; its free amounts are not asked: what is taken follows from the demands.
        usage: by (project, user), the share of the pool in [0, 1] held lately, as `averaged` keeps it.

    Promises: no sweep gets more than is free beside what others still hold; a sweep that runs loses its last slot only
    to one of higher priority; every sweep is served in the end, as long as trials end.
    """
    rules = rules or Rules()
    pools = pools_of(pool)
    members: dict[str, list[Demand]] = {}
    for demand in demands:
        members.setdefault(demand.pool, []).append(demand)
    found: dict[int, Allotment] = {}
    for name, some in members.items():
        found |= _allot_one(some, pools.get(name, NOTHING), usage or {}, rules)
    return found


def _allot_one(
    demands: Sequence[Demand], pool: Capacity, usage: Mapping[Account, float], rules: Rules
) -> dict[int, Allotment]:
    division = divide(demands, pool, usage, rules)
    admission = admit(demands, pool, division, rules)
    return explain(demands, pool, division, admission, rules)
