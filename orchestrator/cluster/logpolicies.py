"""`log_policies`: what lines of a failed trial's log mean for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.ports import SweepStore
from orchestrator.records import Sweep, Trial
from orchestrator.spec.operations import LogPolicy

LOOKED_AT_BYTES = 1_000_000
"""Of each log's end: what ended a trial stands there."""

LEFT = "left node "
"""What the event says, with the node's id behind it, when a sweep leaves a node."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A line that a policy names. node: id of the node whose worker wrote it; "" where that is not known."""

    action: str
    pattern: str
    node: str


class LogPolicies:
    """Reads what the workers of an attempt wrote, and finds the first policy that it meets."""

    def __init__(self, sweep: Sweep, directory: Callable[[Trial], Path]) -> None:
        """directory: where a trial's logs are."""
        self._policies = policies_of(sweep)
        self._directory = directory
        self._nodes: dict[int, Sequence[str]] = {}
        self._sizes: dict[int, dict[Path, int]] = {}

    def started(self, trial: Trial, nodes: Sequence[str]) -> None:
        """An attempt begins; nodes: of its workers, by rank."""
        if self._policies:
            self._nodes[trial.id] = nodes
            self._sizes[trial.id] = {log: log.stat().st_size for log in self._logs(trial)}

    def find(self, trial: Trial, reason: str) -> Finding | None:
        """The first policy that the attempt's end, or a log of it, meets."""
        nodes = self._nodes.get(trial.id, ())
        for policy in self._policies:
            pattern = re.compile(policy.pattern)
            for log in self._logs(trial):
                if pattern.search(self._written(trial, log)):
                    return Finding(policy.action, policy.pattern, _node_of(log, nodes))
            if pattern.search(reason):
                return Finding(policy.action, policy.pattern, nodes[0] if nodes else "")
        return None

    def _logs(self, trial: Trial) -> list[Path]:
        return sorted(self._directory(trial).glob("log*.txt"))

    def _written(self, trial: Trial, log: Path) -> str:
        """By this attempt."""
        begin = self._sizes.get(trial.id, {}).get(log, 0)
        with log.open("rb") as file:
            file.seek(max(begin, log.stat().st_size - LOOKED_AT_BYTES))
            return file.read().decode("utf-8", errors="replace")


def policies_of(sweep: Sweep) -> list[LogPolicy]:
    """As the sweep's spec says."""
    return [LogPolicy.model_validate(words) for words in sweep.spec.get("log_policies") or ()]


def nodes_left(sweep: Sweep, sweeps: SweepStore) -> set[str]:
    """Nodes that earlier drivers of the sweep have left."""
    left: set[str] = set()
    after = 0
    while policies_of(sweep) and (page := sweeps.events(sweep_id=sweep.id, after=after)):
        left |= {event.what.removeprefix(LEFT) for event in page if event.what.startswith(LEFT)}
        after = page[-1].id
    return left


def _node_of(log: Path, nodes: Sequence[str]) -> str:
    """Rank 0 writes log.txt, rank 3 log.rank3.txt."""
    match = re.fullmatch(r"log\.rank(\d+)\.txt", log.name)
    rank = int(match[1]) if match else 0
    return nodes[rank] if rank < len(nodes) else ""
