"""Reading what trials printed."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator import report
from orchestrator.records import Trial
from orchestrator.web.service import Service

PAGE_BYTES = 256_000


def page(service: Service, trial: Trial, offset: int) -> report.LogPage:
    """A piece of a trial's log, from a byte offset on; text is never cut within a character.

    The trial must have been read before: what it wrote before it ended is then never cut off.
    """
    over = report.is_over(trial)
    ran = service.trials.trial(trial.shared_from) if trial.shared_from is not None else trial
    piece = _read(service.storage, service.log_path(ran.sweep_id, ran.id), offset)
    full = len(piece) == PAGE_BYTES
    if full or not over:
        piece = piece[: _whole(piece)]
    text = piece.decode("utf-8", errors="replace")
    return report.LogPage(trial_id=trial.id, text=text, next_offset=offset + len(piece), over=over and not full)


def _read(storage: Path, path: Path, offset: int) -> bytes:
    """What a trial's own code put in the place of its log, such as a link to somebody else's file, is not read."""
    if path.parent.resolve() != storage.resolve() / path.parent.relative_to(storage):
        return b""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    with os.fdopen(handle, "rb") as file:
        if not path.is_file() or offset >= os.fstat(handle).st_size:
            return b""
        file.seek(offset)
        return file.read(PAGE_BYTES)


def _whole(piece: bytes) -> int:
    """Length without the beginning of a UTF-8 character whose end is not there yet."""
    for back in range(1, min(4, len(piece) + 1)):
        byte = piece[-back]
        if byte >= 0xC0:
            wanted = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(piece) - back if back < wanted else len(piece)
        if byte < 0x80:
            break
    return len(piece)
