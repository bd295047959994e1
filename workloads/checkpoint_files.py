"""Checkpoints as files: which are there, whether they are whole, which stay. Torch-free.

A checkpoint is named `step-000000050-<sha256, 16 digits>.ckpt`. The name carries the checksum of the content, so a torn
or altered file is known before it is read. `best-…` and `kept-…` are the same file under names that retention passes
over: the best so far, and those that other trials start from.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from workloads.errors import CheckpointError

LOG = logging.getLogger(__name__)
NAME = re.compile(r"(?P<kind>step|best|kept)-(?P<step>\d+)-(?P<digest>[0-9a-f]{16})\.ckpt")
DIGITS = 16


def latest(directory: str | Path) -> Path | None:
    """The newest undamaged checkpoint of a directory; None where there is none yet.

    Raises:
        CheckpointError: there is no such directory.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise CheckpointError(f"no checkpoint directory at {directory}. Give the checkpoint_dir of an earlier run.")
    for path in _newest_first(directory, "step", "best"):
        if is_whole(path):
            return path
        LOG.warning("checkpoint %s is damaged; trying the one before", path)
    return None


def steps_in(directory: str | Path) -> list[int]:
    """Steps of which there is a checkpoint, in order; none where there is no such directory."""
    directory = Path(directory)
    paths = _newest_first(directory, "step", "best", "kept") if directory.is_dir() else []
    return sorted({_step(path) for path in paths})


def at_step(directory: str | Path, step: int) -> Path:
    """The checkpoint of that step.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    directory = Path(directory)
    paths = _newest_first(directory, "step", "best", "kept") if directory.is_dir() else []
    for path in paths:
        if _step(path) == step and is_whole(path):
            return path
    there = ", ".join(map(str, steps_in(directory))) or "none"
    raise CheckpointError(
        f"no whole checkpoint of step {step} in {directory}; there are those of steps {there}. "
        "`training.keep_checkpoints` says how many of the newest stay."
    )


def keep(directory: str | Path, step: int) -> Path:
    """Give the checkpoint of that step a name under which it stays, and return it.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = at_step(directory, step)
    return _also_named(path, path.with_name(re.sub(r"^(step|best)-", "kept-", path.name)))


def lend(path: Path, directory: str | Path) -> Path:
    """Make a checkpoint the only one of another directory, which is made where it is missing; return it there."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for old in _newest_first(directory, "step", "best", "kept"):
        old.unlink(missing_ok=True)
    return _also_named(path, directory / path.name)


def is_whole(path: Path) -> bool:
    """Whether the content has the checksum that the name gives."""
    match = NAME.fullmatch(path.name)
    with suppress(OSError):
        return match is not None and digest(path) == match["digest"]
    return False


def digest(path: Path) -> str:
    """The checksum that a file's name should carry."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def keep_as_best(path: Path) -> None:
    """Name this checkpoint the best, and forget the one before."""
    best = _also_named(path, path.with_name(path.name.replace("step-", "best-", 1)))
    for old in _newest_first(path.parent, "best"):
        if old != best:
            old.unlink(missing_ok=True)


def forget_after(directory: Path, step: int) -> None:
    """Delete what is newer than that step, but for checkpoints that other trials start from."""
    for path in _newest_first(directory, "step", "best") if directory.is_dir() else ():
        if _step(path) > step:
            path.unlink(missing_ok=True)


def prune(directory: Path, newest: int) -> None:
    """Delete all but the newest checkpoints, and those with a name of their own."""
    for old in _newest_first(directory, "step")[newest:]:
        old.unlink(missing_ok=True)


def _also_named(path: Path, name: Path) -> Path:
    if not name.exists():
        try:
            os.link(path, name)
        except OSError:  # a file system without hard links
            partial = name.with_name(f".{name.name}")
            shutil.copyfile(path, partial)
            partial.replace(name)
    return name


def _step(path: Path) -> int:
    match = NAME.fullmatch(path.name)
    assert match is not None, path
    return int(match["step"])


def _newest_first(directory: Path, *kinds: str) -> list[Path]:
    found = [(match, path) for path in directory.iterdir() if (match := NAME.fullmatch(path.name))]
    wanted = [(int(match["step"]), match["kind"] == "step", path) for match, path in found if match["kind"] in kinds]
    return [path for *_, path in sorted(wanted, reverse=True)]
