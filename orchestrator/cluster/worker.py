"""Inside each worker of a slot: commands in, rows of `workloads.train` out, until there are no more commands."""

from __future__ import annotations

import faulthandler
import functools
import gc
import hashlib
import importlib
import json
import logging
import os
import shutil
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import ray
import ray.train
import ray.train.collective

from orchestrator.cluster.messages import IMPORTS, OWN, Command, Ended, Outcome, Reported, Verdict
from orchestrator.cluster.watch import Bounds, Watch, end_children
from workloads import faults

LOG = logging.getLogger(__name__)
LEAVE = Verdict.LEAVE
COLLECTIVE_TIMEOUT = timedelta(minutes=30)
FAREWELL_S = 10.0


class GiveWay(RuntimeError):
    """Ends this process on purpose, so that Train starts the whole group anew."""


@dataclass(frozen=True, slots=True)
class Seat:
    """This worker's place: which mailbox and slot, which start of the group, which rank of how many; its bounds."""

    mailbox: Any
    slot: str
    generation: int
    rank: int
    workers: int
    bounds: Bounds


def serve(config: dict[str, Any]) -> None:
    """The training function of a slot's Train run. config: `mailbox` (actor handle), `slot` (name), `bounds`."""
    seat = _take_seat(config["mailbox"], config["slot"], config["bounds"])
    # Here, not at the top: the Train controller unpickles this function and has no use for two seconds of torch
    import torch  # noqa: F401

    import workloads.train  # noqa: F401

    for module in filter(None, os.environ.get(IMPORTS, "").split(",")):
        importlib.import_module(module)
    _code()

    _settle()
    settled = False
    here = os.getpid(), ray.get_runtime_context().get_node_id()
    while (order := _call(seat.mailbox.next_command, seat.slot, seat.generation, seat.rank, *here)) != LEAVE:
        _give_way_if(order, seat)
        lease, command = order
        ended = _run(seat, lease, command)
        _give_way_if(_call(seat.mailbox.finish, seat.slot, seat.generation, lease, seat.rank, ended), seat)
        _tidy()
        if not settled:
            # Torch loads 117,000 objects more when something is first trained: 42 ms to walk
            _settle()
            settled = True


def _settle() -> None:
    """What is loaded now stays: a collection need not walk it after every trial."""
    gc.collect()
    gc.freeze()


def _give_way_if(answer: Any, seat: Seat) -> None:
    if answer == Verdict.RESTART:
        raise GiveWay(f"{seat.slot}, rank {seat.rank}: the group is started anew")


def _take_seat(mailbox: Any, slot: str, bounds: Bounds) -> Seat:
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    os.environ["LOCAL_RANK"] = str(context.get_local_rank())
    # One start of the group, one generation: rank 0 asks for it, so that ranks of two starts never mix
    meeting: dict[str, Any] = {"generation": _call(mailbox.hello, slot, _reservation())} if rank == 0 else {}
    if workers > 1:
        meeting = _join_process_group(meeting, rank, workers)
    return Seat(mailbox, slot, meeting["generation"], rank, workers, bounds)


def _reservation() -> str:
    """Id of the placement group that this worker is in."""
    found = ray.util.get_current_placement_group()
    return "" if found is None else str(found.id.hex())


def _join_process_group(meeting: dict[str, Any], rank: int, workers: int) -> dict[str, Any]:
    """torch.distributed over a store that rank 0 opens on a port of the system's choice: none is guessed or clashes."""
    import torch
    from torch import distributed

    store = None
    if rank == 0:
        host = ray.util.get_node_ip_address()
        store = distributed.TCPStore(host, 0, workers, is_master=True, wait_for_workers=False)
        meeting |= {"host": host, "port": store.port}
    meeting = ray.train.collective.broadcast_from_rank_zero(meeting)
    if store is None:
        store = distributed.TCPStore(meeting["host"], meeting["port"], workers, is_master=False)
    # gloo looks up the host's own name, which a laptop's resolver may not know
    if meeting["host"].startswith("127.") and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=workers, timeout=COLLECTIVE_TIMEOUT)
    return meeting


def _run(seat: Seat, lease: int, command: Command) -> Ended:
    directory = Path(command.directory)
    directory.mkdir(parents=True, exist_ok=True)
    error: BaseException | None = None
    log = directory / ("log.txt" if seat.rank == 0 else f"log.rank{seat.rank}.txt")
    with _logged(log), Watch(seat.bounds, functools.partial(_abandon, seat, lease, command, log)) as watch:
        try:
            return _train(seat, lease, command, directory, watch)
        except Exception as caught:
            traceback.print_exc()
            error = caught.with_traceback(None)
    # Only now: while the except block ran, the traceback's frames held the model
    return _failure(error, _checkpoint_in(Path(command.checkpoints)))


def _abandon(seat: Seat, lease: int, command: Command, log: Path, reason: str) -> None:
    """End the trial from outside of it, and this process with it: nothing else stops what does not return."""
    LOG.error("%s", reason)
    with log.open("a") as file:
        faulthandler.dump_traceback(file)
    ended = Ended(outcome=Outcome.FAILED, reason=reason, checkpoint=_checkpoint_in(Path(command.checkpoints)))
    with suppress(Exception):
        told = seat.mailbox.finish.remote(seat.slot, seat.generation, lease, seat.rank, ended)
        ray.get(told, timeout=FAREWELL_S)
    end_children()
    os._exit(1)


def _train(seat: Seat, lease: int, command: Command, directory: Path, watch: Watch) -> Ended:
    import workloads
    from workloads.checkpoint_files import at_step

    trial = workloads.TrialConfig.parse(command.config)
    checkpoints = Path(command.checkpoints)
    if seat.rank == 0:
        checkpoints.mkdir(exist_ok=True)
        _remove_others(directory, checkpoints)
        (directory / "config.json").write_text(json.dumps(trial.document(), indent=2, default=str) + "\n")
    resume_from = checkpoints if _checkpoint_in(checkpoints) else None
    parent = command.parent if resume_from is None else None
    start = "resumes" if resume_from else f"starts from {parent}" if parent else "starts"
    LOG.info("trial %s %s on %s", command.trial_id, start, socket.gethostname())
    # Written as a generator, typed as an iterator: closing it is what stops the trial
    rows: Any = workloads.train(
        trial,
        checkpoint_dir=checkpoints,
        resume_from=resume_from,
        start_from=at_step(parent.checkpoints, parent.step) if parent else None,
        beat=watch.beat,
    )
    with closing(rows):
        for row in chain(_unfinished_row(trial, checkpoints) if resume_from else [], rows):
            reported = _reported(row, checkpoints)
            LOG.info("step %d: %s", reported.step, _brief(reported))
            faults.point("report")
            with watch.waiting():
                go = _call(seat.mailbox.report, seat.slot, seat.generation, lease, seat.rank, reported)
            if not go:
                LOG.info("stopped at step %d", reported.step)
                return Ended(outcome=Outcome.STOPPED, checkpoint=_checkpoint_in(checkpoints))
    return Ended(outcome=Outcome.DONE, checkpoint=_checkpoint_in(checkpoints))


def _unfinished_row(trial: Any, checkpoints: Path) -> list[dict[str, float | int]]:
    """The row of the checkpoint's own step, which `train` does not yield again before the last.

    A worker that was lost between its checkpoint and its report left the curve without it; reporting it twice does
    no harm.
    """
    from workloads import checkpoint

    path = checkpoint.latest(checkpoints)
    state = checkpoint.load(path) if path else {"rows": []}
    return [row for row in state["rows"][-1:] if row["step"] == state["step"] < trial.training.steps]


def _reported(row: dict[str, float | int], checkpoints: Path) -> Reported:
    metrics = {name: float(value) for name, value in row.items() if name != "step"}
    return Reported(step=int(row["step"]), metrics=metrics, checkpoint=_checkpoint_in(checkpoints), code=_code())


@functools.cache
def _code() -> str:
    """Of what this process imported when it started, which is not what lies on disk later."""
    from workloads.version import code_version

    own = os.environ.get(OWN)
    return hashlib.sha256(f"{code_version()} {own}".encode()).hexdigest() if own else code_version()


def _brief(reported: Reported) -> str:
    losses = {name: value for name, value in reported.metrics.items() if name.startswith(("train_loss", "val_"))}
    return "  ".join(f"{name} {value:.4g}" for name, value in losses.items())


def _remove_others(directory: Path, checkpoints: Path) -> None:
    for other in directory.glob("checkpoints*"):
        if other != checkpoints:
            shutil.rmtree(other, ignore_errors=True)


def _checkpoint_in(checkpoints: Path) -> str | None:
    return str(checkpoints) if any(checkpoints.glob("*.ckpt")) else None


def _failure(error: BaseException | None, checkpoint: str | None) -> Ended:
    """An error as a sentence. The workload's own errors say what to do, and come again at every try."""
    from workloads.errors import ConfigError, WorkloadError

    hopeless = isinstance(error, ConfigError | WorkloadError)
    reason = str(error) if hopeless else f"{type(error).__name__}: {error}"
    return Ended(outcome=Outcome.HOPELESS if hopeless else Outcome.FAILED, reason=reason, checkpoint=checkpoint)


def _tidy() -> None:
    """Leave nothing of a trial to the next one.

    Raises:
        GiveWay: the trial broke the GPU for this process.
    """
    import torch

    if left := end_children():
        LOG.warning("the trial left processes behind, which are ended: %s", ", ".join(left))
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        try:
            torch.cuda.synchronize()
        except RuntimeError as broken:
            raise GiveWay(f"the GPU does not recover in this process: {broken}") from None


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Everything that this process prints or logs goes to `path` besides, as long as the disk takes it."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    file = path.open("a", buffering=1, errors="replace")
    in_file = logging.StreamHandler(file)
    in_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    # Ray's own handlers look up sys.stderr each time, and would write every line to the file a second time
    root.handlers = [in_file, logging.StreamHandler(sys.stderr)]
    root.setLevel(logging.INFO)
    try:
        with redirect_stdout(_Tee(sys.stdout, file)), redirect_stderr(_Tee(sys.stderr, file)):
            yield
    finally:
        root.handlers = handlers
        root.setLevel(level)
        with suppress(OSError):
            file.close()


class _Tee:
    """Writes to two streams; is the first in everything else. A disk that is full must not end who prints."""

    def __init__(self, first: TextIO, second: TextIO) -> None:
        self._first, self._second = first, second

    def write(self, text: str) -> int:
        for stream in (self._second, self._first):
            with suppress(OSError):
                stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in (self._second, self._first):
            with suppress(OSError):
                stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)


def _call(method: Any, *arguments: Any) -> Any:
    return ray.get(method.remote(*arguments))
