"""Checkpoints: written atomically, checked by sha256, loaded without running anything from the file.

A checkpoint is one file in torch's format, named as `checkpoint_files` says.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from workloads import faults
from workloads.checkpoint_files import digest, is_whole, keep_as_best, prune
from workloads.checkpoint_files import latest as latest
from workloads.errors import CheckpointError


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

    Raises:
        OSError: the disk is full, or refuses for another reason; the older checkpoints are still there.
    """
    faults.point("checkpoint")
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".writing-{os.getpid()}-{step}"
    try:
        with temporary.open("wb") as file:
            _write(content, file, f"the checkpoint of step {step} cannot be written to {directory}")
            file.flush()
            os.fsync(file.fileno())
        path = directory / f"step-{step:09d}-{digest(temporary)}.ckpt"
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if best:
        keep_as_best(path)
    _sync(directory)
    prune(directory, keep)
    return path


def _write(content: Mapping[str, Any], file: BinaryIO, what: str) -> None:
    try:
        torch.save(dict(content), file)
    except RuntimeError as error:
        # What the disk said is hidden by torch's own complaint, of a position in the file that it did not expect
        refusal = error.__context__
        if not isinstance(refusal, OSError):
            raise
        raise OSError(refusal.errno, f"{what}: {refusal.strerror}") from None


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


def _sync(directory: Path) -> None:
    """Make the renames durable, where directories can be opened (not on Windows)."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
