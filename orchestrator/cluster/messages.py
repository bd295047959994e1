"""What trials, the mailbox and the workers say to each other. Plain data: nothing here knows Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

OWN = "ORCH_SWEEP_OWN"
"""Variable of a sweep's processes: a hash of the code and the environment that it brought itself."""

IMPORTS = "ORCH_SWEEP_IMPORTS"
"""Variable: modules that a worker imports before it trains, with commas."""

STEP = "step"
"""Name of the step in what a scheduler is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A checkpoint of another trial. checkpoints: directory that holds it."""

    trial_id: int
    step: int
    checkpoints: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Train this trial.

    config: what `workloads.train` takes, seed included.
    directory: where the trial's log and configuration go. checkpoints: where its checkpoints go; one that is there is
    taken up. Other directories of checkpoints in `directory` are of no use any more.
    parent: what it starts from while it has no checkpoint of its own; None for a start from nothing.
    """

    trial_id: int
    config: Mapping[str, Any]
    directory: str
    checkpoints: str
    parent: Parent | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A slot was leased; training begins when the trial is told to go on.

    where: slot and process ids, for people. nodes: ids of the nodes of its workers, by rank.
    """

    where: str
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A row of the training loop, which waits for a decision.

    checkpoint: directory, once it holds one. code: `workloads.version.code_version` of what trains.
    """

    step: int
    metrics: Mapping[str, float]
    checkpoint: str | None = None
    code: str = ""


class Outcome(StrEnum):
    """How a command ended.

    FAILED: an exception in training that another try may survive. HOPELESS: one that it would only repeat.
    LOST: the workers went away.
    """

    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"
    HOPELESS = "hopeless"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The slot is done with a command. reason: one sentence for people; "" for DONE and STOPPED."""

    outcome: Outcome
    reason: str = ""
    checkpoint: str | None = None


Happening = Started | Reported | Ended


class Verdict(StrEnum):
    """What a worker does next: wait for a command, give way to a new process, or leave for good."""

    NEXT = "next"
    RESTART = "restart"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotView:
    """One slot, as the pool sees it.

    trial_id: what it is leased to. pids: of its workers, by rank. reservation: id of the placement group that its
    workers were started in last; "" before that. losses_in_a_row: since it was last ready.
    """

    name: str
    ready: bool
    retiring: bool
    trial_id: int | None
    pids: Mapping[int, int] = field(default_factory=dict)
    reservation: str = ""
    losses_in_a_row: int = 0
    last_loss: str = ""
