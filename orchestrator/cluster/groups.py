"""The pool of warm worker groups: each slot is one long Ray Train run whose workers take trial after trial.

A run of its own for each trial costs 8 new processes and 13-25 s; a trial on a warm group starts in under a second.
The pool lives in the driver, outside Tune's actors: Tune kills an actor on an error, and would take the group with it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, UserCallback
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.mailbox import Mailbox
from orchestrator.cluster.reaper import Reaper
from orchestrator.cluster.resources import TrialResources
from orchestrator.cluster.watch import Bounds
from orchestrator.cluster.worker import serve

LOG = logging.getLogger(__name__)
LOOK_AT_ALLOTMENT_S = 1.0
CLOSE_GRACE_S = 10.0
STARTS_BEFORE_GIVING_UP = 5


def open_mailbox(name: str) -> Any:
    """The sweep's mailbox actor. It ends with the driver, and is on its node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox = ray.remote(num_cpus=0, max_concurrency=1000)(Mailbox)
    return mailbox.options(name=name, scheduling_strategy=here).remote()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """name: for the dashboard. bounds: of each trial. storage: directory for what Train writes about its runs."""

    name: str
    resources: TrialResources
    bounds: Bounds
    storage: Path


class Pool:
    """As many slots as `wanted()` says, looked up about once a second: grows at once, shrinks as slots get free."""

    def __init__(
        self, config: PoolConfig, mailbox: Any, *, wanted: Callable[[], int], give_up: Callable[[str], None]
    ) -> None:
        """give_up: called with the reason when a group cannot be brought up at all."""
        self._config, self._mailbox, self._wanted, self._give_up = config, mailbox, wanted, give_up
        self._groups: dict[str, threading.Thread] = {}
        self._reaper = Reaper()
        self.left: set[str] = set()
        self.drained: frozenset[str] = frozenset()
        """Those that the mailbox knows to leave: no trial starts there any more."""
        self._closing = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="pool", daemon=True)
        self._broken_in_a_row = 0
        self._last_break = ""
        self.size = 0

    def __enter__(self) -> Pool:
        self._resize()
        self._follower.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._closing.set()
        if error is not None:
            # The end of the job takes the groups along, and whoever asked for it is waiting
            return
        self._follower.join(timeout=CLOSE_GRACE_S)
        ray.get(self._mailbox.resize.remote(0))
        for group in list(self._groups.values()):
            group.join(timeout=CLOSE_GRACE_S)

    def leave(self, node: str) -> None:
        """No group stays on, or comes to, the node of this id."""
        self.left.add(node)
        ray.get(self._mailbox.leave.remote(node))

    def stay_off(self, drained: frozenset[str]) -> None:
        """The nodes that are drained now: those are left, and those that no longer are may be used again."""
        if drained == self.drained:
            return
        LOG.info("pool: drained nodes are now %s", ", ".join(sorted(drained)) or "none")
        for node in drained - self.left:
            ray.get(self._mailbox.leave.remote(node))
        for node in self.drained - drained - self.left:
            ray.get(self._mailbox.come_back.remote(node))
        self.drained = drained

    def _follow(self) -> None:
        while not self._closing.wait(LOOK_AT_ALLOTMENT_S):
            try:
                self._resize()
                self._look_for_broken()
            except Exception:
                LOG.exception("the pool could not be resized; trying again")

    def _resize(self) -> None:
        # First, for who asks learns also which nodes are drained by now
        wanted = self._wanted()
        # A group that can be placed nowhere would wait with today's selectors when a drained node comes back
        size = wanted if {node["NodeID"] for node in _alive()} - self.left - self.drained else 0
        lacking = ray.get(self._mailbox.resize.remote(size))
        if size != self.size:
            LOG.info("pool: %d slots, %d to start", size, lacking)
        self.size = size
        for _ in range(lacking):
            self._start_group()

    def _look_for_broken(self) -> None:
        slots = ray.get(self._mailbox.view.remote())
        self._reaper.look({slot.reservation for slot in slots})
        for slot in slots:
            if slot.losses_in_a_row >= STARTS_BEFORE_GIVING_UP:
                self._give_up(f"{slot.name} does not start, {slot.losses_in_a_row} times in a row: {slot.last_loss}")
        if any(slot.pids for slot in slots):
            self._broken_in_a_row = 0
        if self._broken_in_a_row >= STARTS_BEFORE_GIVING_UP:
            self._give_up(f"no group can be kept, {self._broken_in_a_row} times in a row: {self._last_break}")

    def _start_group(self) -> None:
        number = next(n for n in range(len(self._groups) + 1) if f"slot-{n}" not in self._groups)
        slot = f"slot-{number}"
        ray.get(self._mailbox.open.remote(slot, self._config.resources.workers))
        self._groups[slot] = threading.Thread(target=self._run_group, args=(slot,), name=slot, daemon=True)
        self._groups[slot].start()

    def _run_group(self, slot: str) -> None:
        reason, broke = "its group was closed", False
        try:
            self._trainer(slot).fit()
        except Exception as error:
            if self._closing.is_set():
                # The driver's end took it along; to ask Ray for anything now would join the cluster anew
                return
            reason, broke = f"its group could not be kept: {_last_line(error)}", True
            # Train gave the whole run up, workers or none; the next one may fare no better
            self._broken_in_a_row, self._last_break = self._broken_in_a_row + 1, _last_line(error)
            LOG.exception("%s ended", slot)
        reservation = ray.get(self._mailbox.close.remote(slot, reason))
        if broke and reservation:
            self._reaper.free(reservation)
        del self._groups[slot]

    def _trainer(self, slot: str) -> _LeanTrainer:
        threads = str(self._config.resources.threads)
        return _LeanTrainer(
            serve,
            train_loop_config={"mailbox": self._mailbox, "slot": slot, "bounds": self._config.bounds},
            scaling_config=self._config.resources.scaling(self.left | self.drained, _alive()),
            run_config=RunConfig(
                name=f"{self._config.name}-{slot}",
                storage_path=str(self._config.storage),
                failure_config=FailureConfig(max_failures=-1),
                callbacks=[_TellLoss(self._mailbox, slot)],
                worker_runtime_env={"env_vars": {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}},
            ),
        )


class _LeanTrainer(DataParallelTrainer):
    """Without the actors that a slot has no use for: a process each, and over a second of start-up on a small machine.

    They serve Ray Data sets, and placement groups of a controller that died, which the pool's `Reaper` frees.
    """

    def _create_default_callbacks(self) -> list[Any]:
        unused = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [each for each in super()._create_default_callbacks() if not isinstance(each, unused)]


class _TellLoss(UserCallback):
    """Runs in the Train controller: tells the mailbox at once, before the group is back."""

    def __init__(self, mailbox: Any, slot: str) -> None:
        self._mailbox, self._slot = mailbox, slot

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        said = "; ".join(f"rank {rank}: {_first_line(error)}" for rank, error in sorted(worker_exceptions.items()))
        ray.get(self._mailbox.lost.remote(self._slot, f"its workers were lost ({said})"))


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _first_line(error: Exception) -> str:
    return _lines(error)[0]


def _last_line(error: Exception) -> str:
    """Of an error that came over from another process, its cause."""
    return _lines(error)[-1]


def _lines(error: Exception) -> list[str]:
    return str(error).strip().splitlines() or [type(error).__name__]
