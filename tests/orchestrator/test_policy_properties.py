"""What the policy promises for every queue, pool, past and house rules; each promise is counted anew here.

Over many decisions: a made-up lab carries them out, its trials end, new sweeps come.
"""

from __future__ import annotations

import dataclasses
import math
import random
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.policy import Demand, Rules, allot, averaged
from orchestrator.records import Capacity, Place

SLACK = 1e-6
HOUR = 3600.0
PROJECTS, USERS, POOLS = ("a", "b", "c"), ("u", "v"), ("", "h100")
Nodes = dict[str, list[tuple[float, float]]]
"""By pool: CPUs and GPUs of each node."""


def capacity(nodes: Nodes) -> Capacity:
    places = tuple(
        Place(labels={"pool": name} if name else {}, memory_bytes=1, node_id=f"{name}{i}", cpus=cpus, gpus=gpus)
        for name, some in nodes.items()
        for i, (cpus, gpus) in enumerate(some)
    )
    cpus, gpus = sum(place.cpus for place in places), sum(place.gpus for place in places)
    return Capacity(cpus=cpus, gpus=gpus, free_cpus=cpus, free_gpus=gpus, nodes=len(places), places=places)


def one_pool(cpus: float, gpus: float = 0.0) -> Capacity:
    return capacity({"": [(cpus, gpus)]})


def waiting(sweep_id: int, **changes) -> Demand:
    words = {"name": f"s{sweep_id}", "priority": 50, "trials": 1, "cpus": 1.0, "gpus": 0.0, "started": False}
    return Demand(sweep_id=sweep_id, **(words | changes))


@dataclasses.dataclass
class Lab:
    """One question to the policy, its answer, and what follows from both."""

    nodes: Nodes
    demands: list[Demand]
    usage: dict[tuple[str, str], float]
    rules: Rules

    def __post_init__(self):
        self.found = allot(self.demands, capacity(self.nodes), self.usage, self.rules)

    def given(self, demand: Demand) -> int:
        return self.found[demand.sweep_id].slots

    def of(self, name: str) -> list[Demand]:
        return [demand for demand in self.demands if demand.pool == name]

    def size(self, name: str) -> tuple[float, float]:
        cpus, gpus = zip(*self.nodes[name], strict=True) if name in self.nodes else ((), ())
        return sum(cpus), sum(gpus)

    def before(self, name: str) -> tuple[float, float]:
        return amounts((demand, holds(demand)) for demand in self.of(name))

    def after(self, name: str) -> tuple[float, float]:
        """What is taken once all that was given has started; what runs beyond its share holds on until it ends."""
        return amounts((demand, max(self.given(demand), holds(demand))) for demand in self.of(name))

    def free(self, name: str) -> tuple[float, float]:
        return tuple(have - taken for have, taken in zip(self.size(name), self.after(name), strict=True))

    def share(self, demand: Demand) -> float:
        needs = zip((demand.cpus, demand.gpus), self.size(demand.pool), strict=True)
        return max(need / have if have else 0.0 for need, have in needs)

    def quota_left(self, demand: Demand, *, before: bool = False) -> float:
        held = sum(
            self.share(other) * (holds(other) if before else max(self.given(other), holds(other)))
            for other in self.of(demand.pool)
            if other.project == demand.project
        )
        return self.rules.quotas.get(demand.project, math.inf) - held

    def wants_more(self, demand: Demand) -> bool:
        return not demand.stopping and self.given(demand) < demand.trials

    def head(self, name: str) -> Demand | None:
        """The one that room is kept for, as the reasons tell."""
        return next((d for d in self.of(name) if "room is kept for it" in self.found[d.sweep_id].reason), None)

    def victims(self, name: str) -> dict[int, Demand]:
        """By the id of each that is stopped, the one that it is stopped for."""
        by_name = {demand.name: demand for demand in self.demands}
        told = {d.sweep_id: re.match(r"preempted by (\w+) ", self.found[d.sweep_id].reason) for d in self.of(name)}
        return {sweep_id: by_name[match[1]] for sweep_id, match in told.items() if match}


def holds(demand: Demand) -> int:
    return max(demand.slots, demand.running, 1) if demand.started or demand.stopping else 0


def amounts(trials) -> tuple[float, float]:
    cpus = gpus = 0.0
    for demand, count in trials:
        cpus, gpus = cpus + count * demand.cpus, gpus + count * demand.gpus
    return cpus, gpus


def fits(demand: Demand, room: tuple[float, float]) -> bool:
    return demand.cpus <= room[0] + SLACK and demand.gpus <= room[1] + SLACK


def drawn_lab(seed: int, sweeps: int, *, shrunk: bool = False) -> Lab:
    """Nodes of one or two pools, sweeps in any state, any past. What runs fits, unless the pool has shrunk since."""
    rng = random.Random(seed)
    names = POOLS[: rng.randint(1, 2)]
    nodes = {
        name: [(rng.choice([2.0, 4.0, 8.0]), rng.choice([0.0, 1.0, 4.0])) for _ in range(rng.randint(1, 3))]
        for name in names
    }
    left = {name: [sum(amount) for amount in zip(*some, strict=True)] for name, some in nodes.items()}
    demands = []
    for sweep_id in range(1, sweeps + 1):
        name = rng.choice(POOLS)
        need = rng.choice([0.5, 1.0, 2.0, 4.0, 7.0]), rng.choice([0.0, 0.0, 0.25, 0.3, 1.0, 2.0])
        room = left.get(name, [0.0, 0.0])
        most = int(min(have / each + 1e-9 for have, each in zip(room, need, strict=True) if each))
        held = rng.randint(0, min(most, 4)) if rng.random() < 0.5 else 0
        room[:] = [have - held * each for have, each in zip(room, need, strict=True)]
        trials = rng.randint(0, 6)
        demands.append(
            waiting(
                sweep_id,
                pool=name,
                priority=rng.choice([10, 50, 50, 50, 53, 90]),
                trials=trials,
                open_trials=trials + rng.randint(0, 9),
                cpus=need[0],
                gpus=need[1],
                started=held > 0,
                stopping=held > 0 and (trials == 0 or rng.random() < 0.15),
                slots=rng.randint(1, held) if held else 0,
                running=held,
                project=rng.choice(PROJECTS),
                user=rng.choice(USERS),
                waited_s=rng.choice([0.0, 0.0, 700.0, 5 * HOUR, 8 * HOUR, 30 * HOUR]),
                trial_s=rng.choice([None, 60.0, HOUR]),
                ends_s=(30.0,) * rng.randint(0, held),
            )
        )
    if shrunk:
        for some in nodes.values():
            del some[1:]
    usage = {(project, user): rng.choice([0.0, 0.1, 0.4, 1.0]) for project in PROJECTS for user in USERS}
    weights = {project: rng.choice([0.5, 1.0, 3.0]) for project in PROJECTS}
    quotas = {project: rng.choice([0.1, 0.25, 0.5, 0.75]) for project in PROJECTS if rng.random() < 0.3}
    return Lab(nodes, demands, usage, Rules(weights=weights, quotas=quotas))


SEEDS = st.integers(0, 2**32)
"""All but the number of sweeps follows from a seed: it costs a twentieth of drawing each number by itself."""

LABS = st.builds(drawn_lab, SEEDS, st.integers(1, 14))
SHRUNK_LABS = st.builds(drawn_lab, SEEDS, st.integers(1, 14), shrunk=st.just(True))

every = settings(deadline=None, max_examples=200)


@every
@given(LABS | SHRUNK_LABS)
def test_no_pool_is_ever_over_committed(lab):
    """What is given and what is still held fit together; a pool that shrank takes on nothing until they do again."""
    assert set(lab.found) == {demand.sweep_id for demand in lab.demands}
    for name in POOLS:
        for taken, had, size in zip(lab.after(name), lab.before(name), lab.size(name), strict=True):
            assert taken <= max(size, had) + SLACK


@every
@given(LABS | SHRUNK_LABS)
def test_a_trial_gets_all_that_it_asks_for_or_nothing(lab):
    """Whole trials only, all at once from one pool, of what is free now and not of what has yet to come free."""
    for name in POOLS:
        free = [have - held for have, held in zip(lab.size(name), lab.before(name), strict=True)]
        starting = amounts((each, max(0, lab.given(each) - holds(each))) for each in lab.of(name))
        assert all(new <= max(have, 0) + SLACK for new, have in zip(starting, free, strict=True))
        for each in lab.of(name):
            assert type(lab.given(each)) is int
            assert 0 <= lab.given(each) <= max(each.trials, each.started)
            assert fits(each, lab.size(name)) or lab.given(each) <= holds(each)
            assert lab.given(each) or lab.found[each.sweep_id].reason


@every
@given(LABS | SHRUNK_LABS)
def test_no_decision_lifts_a_project_above_its_quota(lab):
    """Whatever it holds already counts: also what runs beyond its share, and what is on its way out."""
    for each in lab.demands:
        if lab.given(each) > holds(each):
            assert lab.quota_left(each) >= -SLACK


@every
@given(LABS | SHRUNK_LABS)
def test_nothing_lies_idle_that_somebody_could_use(lab):
    """For one more trial that fits into what is free and into its project's quota, there are three causes to wait.

    Its sweep runs more than its share, and shrinks. Room is kept for another, which it might delay. What is free is on
    its way to a sweep that has a trial, and gets more as soon as one that shrinks or leaves has let go.
    """
    for name in POOLS:
        free, head = lab.free(name), lab.head(name)
        growing = [each for each in lab.of(name) if lab.wants_more(each) and lab.given(each) >= max(holds(each), 1)]
        grows = any(not fits(each, free) for each in growing)
        for each in lab.of(name):
            if not lab.wants_more(each) or not fits(each, free) or lab.quota_left(each) < lab.share(each) - SLACK:
                continue
            shrinks = lab.given(each) < holds(each)
            kept = each is head or (head is not None and _might_delay(lab, each, head))
            on_its_way = grows and any(lab.given(other) < holds(other) for other in lab.of(name))
            assert shrinks or kept or on_its_way, f"{each} waits in front of {free}"


def _might_delay(lab: Lab, each: Demand, head: Demand) -> bool:
    """It takes something that the head may lack."""
    pairs = zip((each.cpus, each.gpus), (head.cpus, head.gpus), lab.free(head.pool), strict=True)
    return any(need and need + heads > free + SLACK for need, heads, free in pairs)


@every
@given(LABS | SHRUNK_LABS)
def test_room_is_kept_for_one_alone_that_could_have_it_and_waited_for_it_or_has_others_stopped(lab):
    for name in POOLS:
        heads = [each for each in lab.of(name) if "room is kept for it" in lab.found[each.sweep_id].reason]
        assert len(heads) <= 1
        for head in heads:
            assert not lab.given(head)
            assert fits(head, lab.size(name))
            leaves = lab.victims(name) or any(each.stopping for each in lab.of(name))
            assert head.waited_s >= lab.rules.patience_s or leaves


@every
@given(LABS | SHRUNK_LABS)
def test_only_what_ranks_lower_is_stopped_and_never_in_vain(lab):
    """For sweeps of a higher priority, by age as well, or that wait for hours longer; and these fit in then.

    That is, a first trial fits once all that leaves or shrinks has done so; further ones may still find gaps filled.
    Where what runs has outgrown the pool or a quota, which shrank, lower ones may be stopped for what runs already.
    """
    for name in POOLS:
        victims = lab.victims(name)
        for each in lab.of(name):
            if not each.started or each.stopping or not each.trials:
                continue
            assert (lab.given(each) == 0) == (each.sweep_id in victims)
            if each.sweep_id not in victims:
                continue
            by = victims[each.sweep_id]
            assert by.pool == name
            assert level(each, lab.rules) < max(level(d, lab.rules) for d in lab.of(name) if d.priority == by.priority)
            longer = by.waited_s >= each.waited_s + lab.rules.overdue_s
            assert each.priority < by.priority or longer
            room = [have - kept for have, kept in zip(lab.size(name), kept_in(lab, name), strict=True)]
            served = [other for other in lab.of(name) if lab.wants_more(other) and other.priority >= each.priority]
            shrank = any(had > size + SLACK for had, size in zip(lab.before(name), lab.size(name), strict=True))
            shrank = shrank or lab.quota_left(each, before=True) < -SLACK
            assert shrank or lab.given(by) or any(fits(other, room) for other in [by, *served] if other is not each)


def kept_in(lab: Lab, name: str) -> tuple[float, float]:
    return amounts((each, lab.given(each)) for each in lab.of(name))


def level(demand: Demand, rules: Rules) -> float:
    return demand.priority + demand.waited_s / rules.aging_s


@every
@given(SEEDS, st.integers(2, 14))
def test_pools_are_divided_as_if_each_were_alone(seed, sweeps):
    lab = drawn_lab(seed, sweeps)
    for name, nodes in lab.nodes.items():
        alone = Lab({name: nodes}, lab.of(name), lab.usage, lab.rules)
        assert alone.found == {each.sweep_id: lab.found[each.sweep_id] for each in lab.of(name)}


@dataclasses.dataclass
class Stream:
    """Sweeps of one kind: whenever one has ended, the next one comes. A trial lasts for an hour, as does a round."""

    project: str
    priority: int
    cpus: float
    trials: int


def rounds(streams: list[Stream], first: list[Demand], cpus: float, rules: Rules, usage=None):
    """Decide, run for an hour, again without end: yields the sweeps that run, at the start of each hour."""
    usage, number = dict(usage or {}), max((each.sweep_id for each in first), default=0)
    kinds: dict[int, Stream] = {}
    queue = {each.sweep_id: each for each in first}
    for stream in streams:
        number += 1
        kinds[number] = stream
    while True:
        for sweep_id, kind in kinds.items():
            if sweep_id not in queue:
                words = dataclasses.asdict(kind) | {"open_trials": kind.trials, "trial_s": HOUR}
                queue[sweep_id] = waiting(sweep_id, **words)
        found = allot([queue[sweep_id] for sweep_id in sorted(queue)], one_pool(cpus), usage, rules)
        taken = sum(each.cpus * max(found[each.sweep_id].slots, holds(each)) for each in queue.values())
        assert taken <= cpus + SLACK
        runs = {i: min(found[i].slots, each.trials) for i, each in queue.items() if found[i].slots}
        yield {i: dataclasses.replace(queue[i], slots=count) for i, count in runs.items()}
        for account in {(each.project, each.user) for each in queue.values()}:
            held = sum(runs.get(i, 0) * e.cpus / cpus for i, e in queue.items() if (e.project, e.user) == account)
            usage[account] = averaged(
                usage.get(account, 0.0), held, held_s=HOUR, passed_s=HOUR, half_life_s=rules.half_life_s
            )
        for i, each in list(queue.items()):
            left = each.trials - runs.get(i, 0)
            if left:
                now = min(runs.get(i, 0), left)
                waited_s = each.waited_s + (0.0 if i in runs else HOUR)
                queue[i] = dataclasses.replace(
                    each, trials=left, open_trials=left, started=now > 0, slots=now, waited_s=waited_s
                )
            else:
                del queue[i]
                if i in kinds:
                    number += 1
                    kinds[number] = kinds.pop(i)


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from([2, 4, 8]),
    st.sampled_from([0.25, 0.5, 1.0]),
    st.integers(1, 3),
    st.lists(st.sampled_from(PROJECTS), min_size=24, max_size=24),
    st.integers(40, 60),
)
def test_a_big_trial_of_low_priority_starts_in_the_end_whatever_comes_meanwhile(cpus, part, crowd, projects, priority):
    """Small work of priority 60, so much at once that the pool needs `crowd` hours for it, comes without end.

    After as many hours as there are points of priority between, and those that the others wait (fair shares may keep
    one waiting for as long again), the big trial ranks above all that comes, and is served.
    """
    rules = Rules()
    streams = [Stream(project, 60, 1.0, 1) for project in projects[: crowd * cpus]]
    big = waiting(1, priority=priority, cpus=max(cpus * part, 1.0), project="patient", trial_s=HOUR)
    bound = (60 - priority) * rules.aging_s / HOUR + 2 * crowd
    started = next(hour for hour, runs in enumerate(rounds(streams, [big], cpus, rules)) if 1 in runs or hour > bound)
    assert started <= bound


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([4.0, 8.0, 12.0]),
    st.dictionaries(
        st.sampled_from(PROJECTS),
        st.tuples(st.sampled_from([1.0, 2.0, 4.0]), st.sampled_from([1.0, 2.0]), st.integers(1, 2)),
        min_size=2,
    ),
    st.sampled_from(PROJECTS),
)
def test_projects_with_work_enough_get_shares_by_weight_over_time(cpus, kinds, favoured):
    """Each asks for more than the pool for three days: the pool's hours go by weights, up to one trial of each project.

    kinds: by project its weight, the CPUs of a trial and the trials of a sweep. One had the whole pool before.
    """
    weights = {project: weight for project, (weight, _, _) in kinds.items()}
    needs = {project: need for project, (_, need, _) in kinds.items()}
    rules = Rules(weights=weights, half_life_s=6 * HOUR)
    streams = [Stream(p, 50, need, trials) for p, (_, need, trials) in kinds.items() for _ in range(2 * int(cpus))]
    had = dict.fromkeys(kinds, 0.0)
    for hour, runs in enumerate(rounds(streams, [], cpus, rules, {(favoured, "anonymous"): 1.0})):
        if hour >= 72:
            break
        if hour >= 24:  # four half-lives: what was before is forgotten
            for each in runs.values():
                had[each.project] += each.slots * each.cpus / cpus / 48
    for poor in kinds:
        for rich in kinds:
            trial = needs[rich] / cpus / weights[rich] + needs[poor] / cpus / weights[poor]
            assert had[rich] / weights[rich] - had[poor] / weights[poor] <= trial
