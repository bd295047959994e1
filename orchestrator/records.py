"""Frozen rows that travel between layers. Times are UTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypedDict

from orchestrator.access import Role
from orchestrator.lifecycle import SweepState, TrialState, Wish

Scalar = str | int | float | bool | None

DATA_CHECKSUM = "data_checksum"
"""The metric by which a trial reports its data: 48 bits as a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTrial:
    """A trial as planned.

    number: its place in the sweep, from 0; the same spec always plans the same numbers.
    config: resolved, without the seed. params: the swept names and their values (a mapping value is kept as JSON text).
    config_hash: sha256 of the canonical JSON of `config`; trials that differ in the seed alone share it.
    identity: hash of all that determines its result; None where nothing may be shared with it.
    parent_trial_id, parent_step: it starts from that trial's checkpoint of that step; both or neither.
    """

    number: int
    config: Mapping[str, Any]
    config_hash: str
    seed: int
    params: Mapping[str, Scalar]
    identity: str | None = None
    parent_trial_id: int | None = None
    parent_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSweep:
    """A sweep as accepted.

    spec: the parsed file as JSON data. source: the file's own text. metric, goal: what ranks its trials.
    """

    name: str
    project: str
    spec: Mapping[str, Any]
    source: str
    priority: int
    metric: str
    goal: str
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One accepted sweep file.

    version: grows by one with every write that a decision may rest on; the compare-and-set guard.
    wish: what people want of it. slots: trials that it may run at once, as the coordinator allots them.
    attempt: number of its driver, from 1 at the first start; 0 before it.
    reason: why it is in this state, in one sentence.
    losses: drivers that were lost since one last stopped when it was asked to.
    queued_at: when it last came into the queue. waited_s: seconds in the queue before that.
    max_concurrent: trials at once, as people changed it since; None where the spec's word stands.
    """

    id: int
    name: str
    project: str
    user: str
    state: SweepState
    version: int
    wish: Wish
    priority: int
    metric: str
    goal: str
    spec: Mapping[str, Any]
    source: str
    slots: int
    attempt: int
    reason: str
    ray_job_id: str | None
    mlflow_run_id: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    losses: int
    queued_at: datetime
    waited_s: float
    max_concurrent: int | None

    @property
    def goals(self) -> dict[str, str]:
        """Goal by metric: of all that count, the one that ranks trials first."""
        several = {each["name"]: each["goal"] for each in self.spec.get("metrics", ())}
        return several or {self.metric: self.goal}

    @property
    def depends_on(self) -> tuple[int, ...]:
        """Sweeps that must have succeeded before it starts."""
        return tuple(map(int, self.spec.get("depends_on", ())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Perturbation:
    """A trial of a population went on from another's checkpoint, with changed parameters.

    attempt: the first that runs with them. step: of its own, which it gave up. parent_step: where it goes on.
    changed: parameters by name, (before, after).
    """

    attempt: int
    step: int
    parent_trial_id: int
    parent_step: int
    changed: Mapping[str, tuple[Scalar, Scalar]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One configuration with one seed, trained once.

    attempt: how often it was started. failures: how often it failed by its own fault.
    metrics: last value by name. best: best value of the sweep's metric, with its step.
    checkpoint_path: directory that `workloads.train(resume_from=...)` takes; None before the first checkpoint.
    step: last recorded step.
    perturbations: in order; config and params are those after the last one.
    score: the sweep's metric over the whole curve, as `metric.aggregate` says; what ranks it.
    identity, parent_trial_id, parent_step: see NewTrial. shared_from: the trial that ran in its stead.
    """

    id: int
    sweep_id: int
    number: int
    state: TrialState
    config: Mapping[str, Any]
    config_hash: str
    seed: int
    params: Mapping[str, Scalar]
    attempt: int
    failures: int
    step: int
    metrics: Mapping[str, float]
    best: float | None
    best_step: int | None
    checkpoint_path: str | None
    mlflow_run_id: str | None
    params_count: int | None
    active_params: int | None
    flops_per_token: float | None
    reason: str
    started_at: datetime | None
    ended_at: datetime | None
    identity: str | None
    parent_trial_id: int | None
    parent_step: int | None
    shared_from: int | None
    score: float | None
    perturbations: tuple[Perturbation, ...] = ()

    @property
    def data_checksum(self) -> str | None:
        """Of what it was trained on, 12 hex digits: losses compare only where it is equal. None before a report."""
        checksum = self.metrics.get(DATA_CHECKSUM)
        return None if checksum is None else f"{int(checksum):012x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wished:
    """What a person wants of a trial that runs, and why."""

    wish: Wish
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthy:
    """The part of a curve that counts after a rewind. until: its last step; None where no part of it does."""

    until: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a trial says after some steps. metrics: finite numbers by name. at: when the driver received it."""

    trial_id: int
    attempt: int
    step: int
    metrics: Mapping[str, float]
    at: datetime


class Facts(TypedDict, total=False):
    """What a trial turns out to be while it runs; what is left out stays as it is.

    checkpoint_path: of its newest. params_count, active_params, flops_per_token: its size. identity: what its result
    is a result of; None for a mixture that nothing equals.
    """

    checkpoint_path: str
    params_count: int
    active_params: int
    flops_per_token: float
    identity: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the audit log: who did what, when, why.

    sweep_id: None where it was done with a token or a node. trial_id: None where the sweep as a whole is meant.
    """

    id: int
    sweep_id: int | None
    trial_id: int | None
    actor: str
    what: str
    reason: str
    at: datetime


class Topic(StrEnum):
    """What an outbox item tells the tracker."""

    SWEEP_STARTED = "sweep_started"
    TRIAL_STARTED = "trial_started"
    REPORT = "report"
    TRIAL_ENDED = "trial_ended"
    SWEEP_ENDED = "sweep_ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxItem:
    """Something to tell the tracker, in order of `id`. payload: JSON; a REPORT has attempt, step, metrics, at."""

    id: int
    topic: Topic
    sweep_id: int
    trial_id: int | None
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Tracking runs that were made: run id by sweep, and by trial."""

    sweeps: Mapping[int, str] = field(default_factory=dict)
    trials: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One node. accelerators: kinds of GPU, as the cluster names them. name, address: for people."""

    labels: Mapping[str, str]
    memory_bytes: int
    accelerators: frozenset[str] = frozenset()
    node_id: str = ""
    name: str = ""
    address: str = ""
    cpus: float = 0.0
    gpus: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a cluster has in all, and what of it is free. places: its nodes; () where they are not known."""

    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float
    nodes: int
    places: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a sweep's trials go. trial_s: mean seconds of those that succeeded; None before the first.

    running_since: when each running trial first started.
    """

    trial_s: float | None
    running_since: tuple[datetime, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a user held in a project lately. share: average share of the pool, in [0, 1], as it was `at` that time."""

    project: str
    user: str
    share: float
    at: datetime


@dataclass(frozen=True, slots=True)
class Lease:
    """Who acts as the coordinator. holder: "" where nobody does. number: grows by one with each holder, from 1.

    renewals: grows by one whenever the holder shows that it lives.
    """

    holder: str
    number: int
    renewals: int


class DriverStatus(StrEnum):
    """What the cluster knows of a sweep's driver. No answer is none of these: it raises Unreachable."""

    MISSING = "missing"
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    DIED = "died"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer token, without its secret. project: the only one that it sees; None for all."""

    id: int
    name: str
    role: Role
    project: str | None
    created_by: str
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Time in the queue of sweeps that have started: how many, seconds in all, and how many within each bound.

    oldest_since: since when the longest waiting of those that have not started waits.
    """

    number: int
    total_s: float
    within: tuple[int, ...]
    oldest_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """A webhook call to make. payload: JSON."""

    sweep_id: int
    url: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(NewDelivery):
    """A webhook call that has not arrived yet. tries: calls so far; due_at: when to try next."""

    id: int
    tries: int
    due_at: datetime


@dataclass(frozen=True, slots=True)
class TrialMark:
    """What tells whether a trial has changed: two marks differ once anything about it does."""

    state: TrialState
    rest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A sweep as it was recorded, with its trials in order of number."""

    sweep: Sweep
    trials: Sequence[Trial]


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """Makes a submission that is sent again the same as once.

    key: the client's own, made unique among all clients. content: digest of what was submitted.
    """

    key: str
    content: str
