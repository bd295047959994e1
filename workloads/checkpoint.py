"""Checkpoints: written atomically, checked by sha256, loaded without running anything from the file.

A checkpoint is one file, `step-000000050-<sha256, 16 digits>.ckpt`, in torch's format. The name carries the checksum
of the content, so a torn or altered file is known before it is read. `best-…` is the same file kept under a name that
retention passes over.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workloads.errors import CheckpointError

LOG = logging.getLogger(__name__)
NAME = re.compile(r"(?P<kind>step|best)-(?P<step>\d+)-(?P<digest>[0-9a-f]{16})\.ckpt")
DIGITS = 16


def save(directory: Path, step: int, content: Mapping[str, Any], *, keep: int, best: bool) -> Path:
    """Write a checkpoint and prune the older ones.

    Args:
        directory: made if it is missing.
        step: steps done.
        content: tensors, numbers, strings, and dicts, lists and tuples of them; nothing else loads again.
        keep: newest checkpoints to leave; the best one stays besides.
        best: this is the best so far.

    Returns:
        The file. It is whole on disk before it has this name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".writing-{os.getpid()}-{step}"
    try:
        with temporary.open("wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        path = directory / f"step-{step:09d}-{_digest(temporary)}.ckpt"
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if best:
        _keep_as_best(path)
    _sync(directory)
    _prune(directory, keep)
    return path


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


def is_whole(path: Path) -> bool:
    """Whether the content has the checksum that the name gives."""
    match = NAME.fullmatch(path.name)
    with suppress(OSError):
        return match is not None and _digest(path) == match["digest"]
    return False


def load(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The content of a checkpoint, tensors on `device`. Runs no code from the file.

    Raises:
        CheckpointError: missing, damaged, or not one of ours.
    """
    path = Path(path)
    if not is_whole(path):
        raise CheckpointError(
            f"checkpoint {path} is missing, or its content has not the checksum in its name. "
            "Resume from its directory, and the newest whole one is taken."
        )
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"checkpoint {path} holds a {type(content).__name__}, expected a dict.")
    return content


def rng_state() -> dict[str, Any]:
    """The state of every global generator: Python's, numpy's, torch's on CPU and GPUs."""
    numpy = np.random.get_state(legacy=False)
    return {
        "python": random.getstate(),
        "numpy": {**numpy, "state": {**numpy["state"], "key": torch.from_numpy(numpy["state"]["key"].copy())}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put every global generator where `rng_state` found it; GPUs only where their number is the same."""
    random.setstate(state["python"])
    numpy = state["numpy"]
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].cpu().numpy()}})
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([each.cpu() for each in state["cuda"]])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def _newest_first(directory: Path, *kinds: str) -> list[Path]:
    found = [(match, path) for path in directory.iterdir() if (match := NAME.fullmatch(path.name))]
    wanted = [(int(match["step"]), match["kind"] == "step", path) for match, path in found if match["kind"] in kinds]
    return [path for *_, path in sorted(wanted, reverse=True)]


def _keep_as_best(path: Path) -> None:
    best = path.with_name(path.name.replace("step-", "best-", 1))
    if not best.exists():
        try:
            os.link(path, best)
        except OSError:  # a file system without hard links
            partial = best.with_name(f".{best.name}")
            shutil.copyfile(path, partial)
            partial.replace(best)
    for old in _newest_first(path.parent, "best"):
        if old != best:
            old.unlink(missing_ok=True)


def _prune(directory: Path, keep: int) -> None:
    for old in _newest_first(directory, "step")[keep:]:
        old.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    """Make the renames durable, where directories can be opened (not on Windows)."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
