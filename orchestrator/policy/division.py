"""What would be fair, if everything could be moved at once: trials by sweep, in the order in which they are due."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from orchestrator.policy.demand import SLACK, Account, Demand, Room, Rules
from orchestrator.records import Capacity


@dataclass(slots=True)
class Division:
    """What `divide` found.

    slots: trials by sweep; sweeps without any are not in it. line: sweeps in the order of their first trial, `head`
    among them. head: the first that is due and fits nowhere though it has waited long enough; room is kept for it.
    urgent: the head, if it is big and overdue. victims: sweeps that lose their last trial, by whom. order: all that
    want something, as they are due by priority.
    """

    slots: dict[int, int] = field(default_factory=dict)
    line: list[Demand] = field(default_factory=list)
    head: Demand | None = None
    urgent: Demand | None = None
    victims: dict[int, Demand] = field(default_factory=dict)
    order: list[Demand] = field(default_factory=list)
    turns: dict[Account, tuple[float, float]] = field(default_factory=dict)
    """By account: what its project and it hold and held, for their weights; the smaller, the sooner it is its turn."""

    def comes_after(self, one: Demand, other: Demand) -> bool:
        """Of two sweeps of one priority, whether the one is served later."""
        if (one.project, one.user) == (other.project, other.user):
            return one.sweep_id > other.sweep_id
        level = 0 if one.project != other.project else 1
        later, sooner = self.turns[one.project, one.user], self.turns[other.project, other.user]
        return later[level] >= sooner[level]


def divide(demands: Sequence[Demand], pool: Capacity, usage: Mapping[Account, float], rules: Rules) -> Division:
    """Divide the whole pool, priority by priority.

    A priority rises by the time that its sweeps have waited, so that none waits for ever; among sweeps of one priority
    time does not count, or a long queue would undo fair shares.
    """
    work = _Work(demands, pool, usage, rules)
    bands = sorted(_bands(demands, rules), key=lambda band: -band.level)
    places = [demand for band in bands for demand in band.demands if demand.started]
    for band in bands:
        work.division.order += band.demands
        places = [place for place in places if place.priority != band.priority]
        work.keep_places(band)
        protected = [place for place in places if not band.outranks(place, rules)]
        for place in protected:
            work.set_aside(place, 1)
        work.serve_overdue(band)
        work.fill(band)
        for place in protected:
            work.set_aside(place, -1)
    work.division.turns = {
        account: (work.turn_of_project(account[0]), work.turn_of_user(account)) for account in work.accounts
    }
    return work.division


class _Band:
    """The sweeps of one priority.

    level: the priority, risen by the longest wait. first: by project, the first sweep that got a trial.
    """

    def __init__(self, priority: int, demands: list[Demand], rules: Rules) -> None:
        self.priority, self.demands = priority, demands
        longest_s = max((demand.waited_s for demand in demands if not demand.started), default=0.0)
        self.level = priority + longest_s / rules.aging_s
        self.first: dict[str, Demand] = {}

    def outranks(self, place: Demand, rules: Rules) -> bool:
        """It may take that sweep's last slot. By age too, so that arrivals without end cannot stop it for ever."""
        return self.priority > place.priority and self.level > place.level(rules)


def _bands(demands: Sequence[Demand], rules: Rules) -> list[_Band]:
    members: dict[int, list[Demand]] = {}
    for demand in demands:
        if demand.trials and not demand.stopping:
            members.setdefault(demand.priority, []).append(demand)
    return [_Band(priority, found, rules) for priority, found in members.items()]


_CPUS, _GPUS = attrgetter("cpus"), attrgetter("gpus")


class _User:
    """A user's sweeps of one priority: first those that wait, the oldest last in `queue`; then those with least."""

    __slots__ = ("account", "index", "queue", "ring")

    def __init__(self, account: Account, index: int) -> None:
        self.account, self.index = account, index
        self.queue: list[Demand] = []
        self.ring: list[tuple[float, int, Demand]] = []


class _Work:
    """The state while dividing: what is left, and what projects and users hold and held, for their weights."""

    def __init__(self, demands: Sequence[Demand], pool: Capacity, usage: Mapping[Account, float], rules: Rules) -> None:
        self.pool, self.rules = pool, rules
        self.left = Room(pool.cpus, pool.gpus)
        self.division = Division()
        self.granted: list[_Band] = []
        self.accounts: set[Account] = set()  # of sweeps that want something
        self.held: dict[str, float] = {}
        count = max(len(demands), 1)
        self.big_cpus = rules.big * sum(map(_CPUS, demands)) / count
        self.big_gpus = rules.big * sum(map(_GPUS, demands)) / count
        self.users: dict[Account, float] = dict(usage)
        self.projects: dict[str, float] = {}
        for (project, _), share in usage.items():
            self.projects[project] = self.projects.get(project, 0.0) + share

    def keep_places(self, band: _Band) -> None:
        """What runs keeps one slot, unless the pool, or its project's quota, is taken by sweeps that may take it.

        A pool that shrank takes none.
        """
        for demand in band.demands:
            if not demand.started:
                continue
            above = [each.first for each in self.granted if each.outranks(demand, self.rules)]
            by: Demand | None = None
            if above and not self.left.fits(demand):
                by = next(iter(above[0].values()))
            elif not self._within_quota(demand):
                by = next((first[demand.project] for first in above if demand.project in first), None)
            if by is None:
                self._give(demand)
            else:
                self.division.victims[demand.sweep_id] = by

    def set_aside(self, place: Demand, trials: int) -> None:
        """So many trials of it are out of the reach of others: their room, and their part of its project's quota."""
        self.left.take(place, trials)
        self.held[place.project] = self.held.get(place.project, 0.0) + trials * place.share_of(self.pool)

    def serve_overdue(self, band: _Band) -> None:
        """Big trials that waited too long come first, the longest wait before all."""
        overdue = [
            demand
            for demand in band.demands
            if demand.waited_s >= self.rules.overdue_s and not demand.started and self._is_big(demand)
        ]
        for demand in sorted(overdue, key=lambda demand: -demand.waited_s):
            if self._fits(demand):
                self._give_first(band, demand)
            elif self._becomes_head(demand):
                self.division.urgent = demand
                self.left.cpus -= min(max(self.left.cpus, 0.0), demand.cpus)
                self.left.gpus -= min(max(self.left.gpus, 0.0), demand.gpus)

    def fill(self, band: _Band) -> None:
        """One trial after the other, to whoever holds and held least for its weight, until nothing fits."""
        projects = self._projects_of(band)
        turns = [(self.turn_of_project(name), index, name) for index, name in enumerate(projects)]
        heapq.heapify(turns)
        while turns:
            _, index, name = turns[0]
            users = projects[name]
            demand = self._next(users)
            if demand is None:
                heapq.heappop(turns)
                continue
            self._give_first(band, demand)
            user = users[0][2]
            self._put_back(user, demand)
            heapq.heapreplace(users, (self.turn_of_user(user.account), user.index, user))
            heapq.heapreplace(turns, (self.turn_of_project(name), index, name))

    def _projects_of(self, band: _Band) -> dict[str, list[tuple[float, int, _User]]]:
        users: dict[Account, _User] = {}
        for demand in band.demands:
            account = (demand.project, demand.user)
            user = users.get(account)
            if user is None:
                user = users[account] = _User(account, len(users))
            if demand.sweep_id not in self.division.slots:
                if not demand.started:
                    user.queue.append(demand)
            else:
                user.ring.append((demand.share_of(self.pool), len(user.ring), demand))
        self.accounts.update(users)
        projects: dict[str, list[tuple[float, int, _User]]] = {}
        for account, user in users.items():
            user.queue.reverse()
            heapq.heapify(user.ring)
            turn = (self.turn_of_user(account), user.index, user)
            projects.setdefault(account[0], []).append(turn)
        for heap in projects.values():
            heapq.heapify(heap)
        return projects

    def _next(self, users: list[tuple[float, int, _User]]) -> Demand | None:
        """The project's next trial that fits: of the user first in turn, of the oldest sweep that waits."""
        patience_s = self.rules.patience_s
        while users:
            user = users[0][2]
            queue, cpus, gpus = user.queue, self.left.cpus + SLACK, self.left.gpus + SLACK
            while queue:
                demand = queue[-1]
                # Asked in place and not of `Room`: a long queue is passed over here, sweep by sweep, at every decision
                if demand.cpus <= cpus and demand.gpus <= gpus and self._within_quota(demand):
                    return demand
                queue.pop()
                if demand.waited_s >= patience_s and self.division.head is None and not self._is_big(demand):
                    self._becomes_head(demand)
            while user.ring:
                demand = user.ring[0][2]
                if self.division.slots[demand.sweep_id] < demand.trials and self._fits(demand):
                    return demand
                heapq.heappop(user.ring)
            heapq.heappop(users)
        return None

    def _is_big(self, demand: Demand) -> bool:
        """So much bigger than others that room for it would lie idle for long while it adds up."""
        return demand.cpus > self.big_cpus or demand.gpus > self.big_gpus

    def _becomes_head(self, demand: Demand) -> bool:
        """It is due, fits nowhere, and has let others pass for long enough; unless another did so before it."""
        if self.division.head is not None or demand.waited_s < self.rules.patience_s:
            return False
        if not self._within_quota(demand) or not Room(self.pool.cpus, self.pool.gpus).fits(demand):
            return False
        self.division.head = demand
        self.division.line.append(demand)
        return True

    def _put_back(self, user: _User, demand: Demand) -> None:
        if user.queue and user.queue[-1] is demand:
            index = len(user.queue)
            user.queue.pop()
            heapq.heappush(user.ring, (demand.share_of(self.pool), -index, demand))
        else:
            held, index, _ = user.ring[0]
            heapq.heapreplace(user.ring, (held + demand.share_of(self.pool), index, demand))

    def _give_first(self, band: _Band, demand: Demand) -> None:
        self._give(demand)
        if not band.first:
            self.granted.append(band)
        band.first.setdefault(demand.project, demand)

    def _give(self, demand: Demand) -> None:
        if demand.sweep_id not in self.division.slots:
            self.division.line.append(demand)
        self.division.slots[demand.sweep_id] = self.division.slots.get(demand.sweep_id, 0) + 1
        self.set_aside(demand, 1)
        share, account = demand.share_of(self.pool), (demand.project, demand.user)
        self.projects[demand.project] = self.projects.get(demand.project, 0.0) + share
        self.users[account] = self.users.get(account, 0.0) + share

    def _fits(self, demand: Demand) -> bool:
        return self.left.fits(demand) and self._within_quota(demand)

    def _within_quota(self, demand: Demand) -> bool:
        quota = self.rules.quotas.get(demand.project)
        if quota is None:
            return True
        return self.held.get(demand.project, 0.0) + demand.share_of(self.pool) <= quota + SLACK

    def turn_of_project(self, name: str) -> float:
        """The smaller, the sooner."""
        return self.projects.get(name, 0.0) / self.rules.weights.get(name, 1.0)

    def turn_of_user(self, account: Account) -> float:
        """The same among the users of a project."""
        return self.users.get(account, 0.0) / self.rules.weights.get("/".join(account), 1.0)
