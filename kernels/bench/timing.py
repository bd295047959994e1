"""Two ways to the same result, timed in turns: what both benchmarks share."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Work = Callable[[], Any]


def seconds(work: Work, device: str) -> float:
    """What one run takes. One thread on a CPU by its own time, which leaves out what busy neighbours take."""
    alone = device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    if device == "cuda":
        torch.cuda.synchronize()
    start = clock()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def in_turns(ours: Work, peer: Work, rounds: int, device: str) -> tuple[float, float, float]:
    """(ours in ms, the peer in ms, ours / peer): medians over the rounds, the ratio of each round's pair."""
    for work in (ours, peer):
        work()
    pairs = [(seconds(ours, device), seconds(peer, device)) for _ in range(rounds)]
    first, second = (1e3 * statistics.median(side) for side in zip(*pairs, strict=True))
    return first, second, statistics.median(a / b for a, b in pairs)


def machine(device: str) -> str:
    """Date, versions and the device, for the head of a table."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        info = Path("/proc/cpuinfo")
        lines = info.read_text().splitlines() if info.exists() else []
        model = next((line.split(":")[1] for line in lines if line.startswith("model name")), platform.processor())
        name = f"{model.strip()}, {torch.get_num_threads()} threads of {os.cpu_count()}"
    return f"{time.strftime('%Y-%m-%d')}  torch {torch.__version__}  {name}"
