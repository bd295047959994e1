"""A hypothesis as it stood before anything had run: hashed with its time, so that a later change shows. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

SEALED = "hypothesis sealed"
"""What the event says whose reason is the seal."""


def seal_of(spec: Mapping[str, Any], name: str, at: datetime) -> str:
    """sha256 over the hypothesis of a spec, the sweep's name and the time of submission; "" where none is claimed.

    The rest of the spec goes in with it: a claim means something for the sweep that was to test it.
    """
    if not spec.get("hypothesis"):
        return ""
    text = json.dumps([name, spec, at.astimezone(UTC).isoformat()], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
