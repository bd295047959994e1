"""What a trial is: everything that determines its result, as one hash. Pure.

Two trials with one identity would come to the same numbers, so the second need not run.
"""

from __future__ import annotations

import hashlib
import json


def identity_of(
    config_hash: str, seed: int, *, code: str, data_checksum: int, parent: tuple[str, int] | None = None
) -> str:
    """sha256 of configuration, seed, code, data, and the checkpoint that it starts from.

    Args:
        code: `workloads.version.code_version` where it trains.
        data_checksum: as the trial reports it: the first 48 bits of its task's fingerprint.
        parent: identity of the parent, and the step of its checkpoint.
    """
    text = json.dumps([config_hash, seed, code, data_checksum, parent])
    return hashlib.sha256(text.encode()).hexdigest()
