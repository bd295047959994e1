"""Answers on request, for programs that must not import torch: a question in, an answer out, one JSON line each.

echo '{"budget": {"model": {"d_model": 64}}}' | python -m workloads.sizing
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from workloads.budget import budget
from workloads.build import task_of
from workloads.config import TrialConfig
from workloads.errors import WorkloadError
from workloads.memory import training_bytes
from workloads.tasks.base import data_checksum


def answers(lines: Iterable[str]) -> Iterator[str]:
    """{"budget": configuration} is answered with its columns, {"data": configuration} with {"checksum": number},
    {"memory": configuration} with {"bytes": number}.

    {"error": why} where no model has the configuration, or its data are not here.
    """
    for line in lines:
        ((kind, config),) = json.loads(line).items()
        try:
            answer = _ANSWERS[kind](config)
        except (ValueError, WorkloadError) as error:
            answer = {"error": str(error)}
        yield json.dumps(answer)


def _data(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"checksum": data_checksum(task_of(TrialConfig.parse(config)))}


_ANSWERS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "budget": lambda config: dict(budget(config).columns()),
    "data": _data,
    "memory": lambda config: {"bytes": training_bytes(config)},
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for answer in answers(sys.stdin):
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()
