"""Budgets on request, for programs that must not import torch: configurations in, budgets out, one JSON line each.

echo '{"model": {"d_model": 64}}' | python -m workloads.sizing
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator

import torch

from workloads.budget import budget


def answers(lines: Iterable[str]) -> Iterator[str]:
    """For each configuration its budget's columns, or {"error": why} for one that no model can have."""
    for line in lines:
        try:
            answer: dict[str, object] = dict(budget(json.loads(line)).columns())
        except ValueError as error:
            answer = {"error": str(error)}
        yield json.dumps(answer)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for answer in answers(sys.stdin):
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()
