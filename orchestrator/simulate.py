"""Use case: how scheduling policies would serve a trace, event by event; orch's own is the `policy.allot` it runs."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.policy import Account, Demand, Rules, allot, averaged
from orchestrator.records import Capacity
from orchestrator.report import PolicyDocument, WaitDocument
from orchestrator.traces import Arrival

CHECKPOINT_S = 300.0
"""A trial that is stopped goes on from its last checkpoint, one every so often."""

START_S = 20.0
"""What a driver and its first worker groups take to come up."""

Slots = Mapping[int, int]
Policy = Callable[[Sequence[Demand], Capacity, Mapping[Account, float]], Slots]


def fifo(demands: Sequence[Demand], pool: Capacity, usage: Mapping[Account, float]) -> Slots:
    """First come, first served: nobody overtakes."""
    return _in_order(demands, pool, strict=True)


def priority_only(demands: Sequence[Demand], pool: Capacity, usage: Mapping[Account, float]) -> Slots:
    """By priority, then age; what does not fit is passed over."""
    return _in_order(sorted(demands, key=lambda demand: -demand.priority), pool, strict=False)


def orchs_own(rules: Rules) -> Policy:
    """The policy that orch runs."""

    def decide(demands: Sequence[Demand], pool: Capacity, usage: Mapping[Account, float]) -> Slots:
        return {sweep_id: allotment.slots for sweep_id, allotment in allot(demands, pool, usage, rules).items()}

    return decide


def _in_order(demands: Sequence[Demand], pool: Capacity, *, strict: bool) -> Slots:
    slots = {demand.sweep_id: min(demand.held, demand.trials) for demand in demands}
    free = pool.gpus - sum(demand.held * demand.gpus for demand in demands)
    for demand in demands:
        more = min(demand.trials - slots[demand.sweep_id], math.floor(free / demand.gpus + 1e-9))
        if more > 0:
            slots[demand.sweep_id] += more
            free -= more * demand.gpus
        if strict and not slots[demand.sweep_id]:
            break
    return slots


class PolicyName(StrEnum):
    """Policies that can be compared."""

    FIFO = "fifo"
    PRIORITY = "priority"
    ORCH = "orch"


def compare(
    arrivals: Sequence[Arrival], gpus: int, *, names: Iterable[PolicyName] = PolicyName, tick_s: float = 120.0
) -> list[PolicyDocument]:
    """First come first served, priority alone, and orch's own policy on one trace; or those of them named.

    Args:
        arrivals: by time; none may need more GPUs for a trial than there are.
        tick_s: shortest time between two decisions.
    """
    rules = Rules()
    policies: dict[PolicyName, Policy] = {
        PolicyName.FIFO: fifo,
        PolicyName.PRIORITY: priority_only,
        PolicyName.ORCH: orchs_own(rules),
    }
    return [Simulation(arrivals, gpus, rules, tick_s).run(name, policies[name]) for name in names]


@dataclass(slots=True)
class _Sweep:
    id: int
    arrival: Arrival
    pending: list[float]
    running: dict[int, tuple[float, float]] = field(default_factory=dict)
    """By trial: when it started, and when it ends."""
    slots: int = 0
    queued_at: float = 0.0
    waited_s: float = 0.0
    first_start: float | None = None
    done: int = 0
    done_s: float = 0.0

    @property
    def open_trials(self) -> int:
        return len(self.pending) + len(self.running)

    def demand(self, now: float, guess_s: float) -> Demand:
        arrival, started = self.arrival, self.slots > 0
        trial_s = self.done_s / self.done if self.done else None
        return Demand(
            sweep_id=self.id,
            name=str(self.id),
            priority=arrival.priority,
            trials=self.open_trials,
            open_trials=self.open_trials,
            cpus=0.0,
            gpus=arrival.gpus,
            started=started,
            project=arrival.project,
            user=arrival.user,
            slots=self.slots,
            running=len(self.running),
            waited_s=self.waited_s if started else self.waited_s + now - self.queued_at,
            trial_s=trial_s,
            ends_s=[_expected_s(trial_s or guess_s, now - since) for since, _ in self.running.values()],
        )


def _expected_s(trial_s: float, age_s: float) -> float:
    return trial_s - age_s if age_s < trial_s else age_s


class Simulation:
    """One trace under one policy."""

    def __init__(self, arrivals: Sequence[Arrival], gpus: int, rules: Rules, tick_s: float) -> None:
        self._arrivals, self._rules, self._tick_s = arrivals, rules, tick_s
        self._pool = Capacity(cpus=0, gpus=gpus, free_cpus=0, free_gpus=gpus, nodes=1)
        self._now = 0.0
        self._open: dict[int, _Sweep] = {}
        self._ends: list[tuple[float, int, int]] = []
        self._usage: dict[Account, float] = {}
        self._waits: list[tuple[float, float]] = []
        self._meter = _Meter(gpus)
        self._decision_s: list[float] = []
        self._preemptions, self._lost, self._longest_queue = 0, 0.0, 0

    def run(self, name: str, policy: Policy) -> PolicyDocument:
        """Until all sweeps have ended."""
        upcoming = [*reversed(self._arrivals)]
        number, next_decision, due = 0, 0.0, False
        while upcoming or self._open:
            due = due or not self._ends
            self._advance(self._next_event(upcoming, next_decision if due and self._open else math.inf))
            while upcoming and upcoming[-1].at_s <= self._now:
                number, arrival = number + 1, upcoming.pop()
                self._open[number] = _Sweep(number, arrival, [*reversed(arrival.trials_s)], queued_at=arrival.at_s)
                due = True
            while self._ends and self._ends[0][0] <= self._now:
                due = self._end_trial(*heapq.heappop(self._ends)) or due
            if due and self._now >= next_decision:
                due = self._decide(policy)
                next_decision = self._now + self._tick_s
        return self._outcome(name)

    def _next_event(self, upcoming: Sequence[Arrival], decision_at: float) -> float:
        arrival_at = upcoming[-1].at_s if upcoming else math.inf
        return min(arrival_at, self._ends[0][0] if self._ends else math.inf, max(decision_at, self._now))

    def _advance(self, to: float) -> None:
        self._meter.advance(to - self._now)
        self._now = to

    def _end_trial(self, at_s: float, sweep_id: int, trial: int) -> bool:
        """Whether room came free: otherwise the slot takes the sweep's next trial."""
        sweep = self._open.get(sweep_id)
        if sweep is None or sweep.running.get(trial, (0.0, 0.0))[1] != at_s:
            return False
        since, _ = sweep.running.pop(trial)
        sweep.done, sweep.done_s = sweep.done + 1, sweep.done_s + at_s - since
        left = len(sweep.running)
        self._start_trials(sweep, 0.0)
        if not sweep.open_trials:
            del self._open[sweep_id]
        if len(sweep.running) > left:
            return False
        self._meter.release(sweep.arrival.project, sweep.arrival.gpus)
        return True

    def _start_trials(self, sweep: _Sweep, delay_s: float) -> None:
        while sweep.pending and len(sweep.running) < sweep.slots:
            trial = len(sweep.pending)
            ends = self._now + delay_s + sweep.pending.pop()
            sweep.running[trial] = (self._now, ends)
            heapq.heappush(self._ends, (ends, sweep.id, trial))

    def _decide(self, policy: Policy) -> bool:
        """Decide and carry it out. Whether another decision is due: what was stopped has left room."""
        demands = [sweep.demand(self._now, self._rules.guess_s) for sweep in self._open.values()]
        self._charge(demands)
        began = time.process_time()
        slots = policy(demands, self._pool, self._usage)
        self._decision_s.append(time.process_time() - began)
        stopped = False
        for sweep in [*self._open.values()]:
            given = slots.get(sweep.id, 0)
            if sweep.slots and not given and sweep.open_trials:
                self._stop(sweep)
                stopped = True
            elif given:
                self._serve(sweep, given)
        waiting = sum(not sweep.slots for sweep in self._open.values())
        self._longest_queue = max(self._longest_queue, sum(not demand.started for demand in demands))
        self._meter.set(self._open.values(), waiting > 0)
        assert self._meter.busy <= self._pool.gpus + 1e-6, "more was given than there is"
        return stopped

    def _serve(self, sweep: _Sweep, slots: int) -> None:
        new = not sweep.slots
        if new:
            sweep.waited_s += self._now - sweep.queued_at
        if sweep.first_start is None:
            sweep.first_start = self._now
            self._waits.append((sweep.arrival.gpus, self._now - sweep.arrival.at_s))
        sweep.slots = slots
        self._start_trials(sweep, START_S if new else 0.0)

    def _stop(self, sweep: _Sweep) -> None:
        self._preemptions += 1
        for since, ends in sweep.running.values():
            kept = (self._now - since) // CHECKPOINT_S * CHECKPOINT_S
            self._lost += (self._now - since - kept) * sweep.arrival.gpus
            sweep.pending.append(ends - since - kept)
        sweep.running.clear()
        sweep.slots, sweep.queued_at = 0, self._now

    def _charge(self, demands: Sequence[Demand]) -> None:
        passed = self._meter.since_charge_s
        self._meter.since_charge_s = 0.0
        held: dict[Account, float] = {}
        for demand in demands:
            if demand.held:
                account = (demand.project, demand.user)
                held[account] = held.get(account, 0.0) + demand.held * demand.share_of(self._pool)
        for account in {*held, *self._usage}:
            self._usage[account] = averaged(
                self._usage.get(account, 0.0),
                held.get(account, 0.0),
                held_s=passed,
                passed_s=passed,
                half_life_s=self._rules.half_life_s,
            )

    def _outcome(self, name: str) -> PolicyDocument:
        work = sum(arrival.work for arrival in self._arrivals)
        took = sorted(self._decision_s)
        return PolicyDocument(
            policy=name,
            hours=self._now / 3600,
            packing=shortest_s(self._arrivals, self._pool.gpus) / self._now,
            utilisation=self._meter.utilisation,
            waits={
                "under 8": self._wait(0, 8),
                "8 and more": self._wait(8, 64),
                "64 and more": self._wait(64, math.inf),
                "all": self._wait(0, math.inf),
            },
            fairness=self._meter.fairness,
            preemptions=self._preemptions,
            lost=self._lost / work,
            decisions=len(took),
            decision_ms=(1e3 * _quantile(took, 0.5), 1e3 * _quantile(took, 0.95), 1e3 * took[-1]),
            longest_queue=self._longest_queue,
        )

    def _wait(self, least: float, below: float) -> WaitDocument:
        hours = sorted(wait / 3600 for gpus, wait in self._waits if least <= gpus < below)
        return WaitDocument(
            sweeps=len(hours),
            p50_h=_quantile(hours, 0.5),
            p95_h=_quantile(hours, 0.95),
            longest_h=hours[-1] if hours else 0.0,
        )


class _Meter:
    """Integrals over time of what the pool does and of what each project has."""

    def __init__(self, gpus: float) -> None:
        self._gpus = gpus
        self.busy = 0.0
        self.since_charge_s = 0.0
        self._waits = False
        self._had: dict[str, float] = {}
        self._entitled: dict[str, float] = {}
        self._now_had: dict[str, float] = {}
        self._now_entitled: dict[str, float] = {}
        self._busy_s = self._contended_s = 0.0

    def set(self, sweeps: Iterable[_Sweep], waits: bool) -> None:
        """What is true until the next decision."""
        wanted: dict[str, float] = {}
        had: dict[str, float] = {}
        for sweep in sweeps:
            project, gpus = sweep.arrival.project, sweep.arrival.gpus
            wanted[project] = wanted.get(project, 0.0) + sweep.open_trials * gpus
            had[project] = had.get(project, 0.0) + len(sweep.running) * gpus
        self._now_had, self._now_entitled = had, even_shares(wanted, self._gpus)
        self.busy, self._waits = sum(had.values()), waits

    def release(self, project: str, gpus: float) -> None:
        """A trial ended, and nothing took its place yet."""
        self.busy -= gpus
        self._now_had[project] -= gpus

    def advance(self, seconds: float) -> None:
        """Time goes on."""
        self.since_charge_s += seconds
        if not self._waits:
            return
        self._contended_s += seconds
        self._busy_s += self.busy * seconds
        for name, share in self._now_entitled.items():
            self._entitled[name] = self._entitled.get(name, 0.0) + share * seconds
            self._had[name] = self._had.get(name, 0.0) + self._now_had.get(name, 0.0) * seconds

    @property
    def utilisation(self) -> float:
        """Share of the pool at work while some sweep waited; 1 if none ever did."""
        return self._busy_s / (self._gpus * self._contended_s) if self._contended_s else 1.0

    @property
    def fairness(self) -> float:
        """Jain, Chiu and Hawe (1984): 1 when all have what they are entitled to, 1/n when one has it all."""
        return jain([self._had[name] / entitled for name, entitled in self._entitled.items() if entitled])


def even_shares(wanted: Mapping[str, float], total: float) -> dict[str, float]:
    """Max-min fair shares of `total`: nobody gets more than wanted, and what is left over is shared again."""
    shares: dict[str, float] = {}
    for index, (name, most) in enumerate(sorted(wanted.items(), key=lambda item: item[1])):
        shares[name] = min(most, (total - sum(shares.values())) / (len(wanted) - index))
    return shares


def jain(values: Sequence[float]) -> float:
    """Jain's fairness index of non-negative numbers, in [1/n, 1]."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def shortest_s(arrivals: Sequence[Arrival], gpus: float) -> float:
    """A time before which no policy can have ended all: by work that comes at or after each moment, and by trial."""
    later, bound = 0.0, 0.0
    for arrival in reversed(arrivals):
        later += arrival.work
        bound = max(bound, arrival.at_s + later / gpus, arrival.at_s + max(arrival.trials_s))
    return bound


def _quantile(ordered: Sequence[float], q: float) -> float:
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else 0.0
