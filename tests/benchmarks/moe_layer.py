"""What a mixture layer costs beside a dense one and beside fewer experts of the same active width.

    python -m tests.benchmarks.moe_layer [--tokens 4096] [--d-model 256] [--expert-hidden 256] [--routers]

Prints milliseconds of forward + backward (least of the repeats, since what disturbs a run only ever lengthens it, then
median and largest), the ratio of 64 experts to 8 at top-2, which should stay below 1.5, and with --routers every
router's layer beside top-2.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import nn

from workloads import build_feedforward, list_routers
from workloads.slots import LayerContext

Pass = Callable[[], None]


def training_pass(layer: nn.Module, x: torch.Tensor, ids: torch.Tensor) -> Pass:
    """One forward and backward pass over x [B, T, D]."""

    def run() -> None:
        where = LayerContext(tokens=ids, health=False)
        y = layer(x, where)
        (y.sum() + sum(where.losses.values())).backward()
        layer.zero_grad(set_to_none=True)
        x.grad = None

    return run


def measure(passes: Mapping[str, Pass], repeats: int) -> dict[str, list[float]]:
    """Milliseconds by name, the passes taking turns so that a busy moment of the machine strikes all alike."""
    for run in passes.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(repeats):
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--d-model", type=int, default=256)
    parser.add_argument("--expert-hidden", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--routers", action="store_true")
    arguments = parser.parse_args()
    d_model, hidden = arguments.d_model, arguments.expert_hidden
    torch.manual_seed(0)
    x = torch.randn(arguments.tokens // 128, 128, d_model, requires_grad=True)
    ids = torch.randint(0, 256, x.shape[:2])

    def moe(num_experts: int, router: str = "topk") -> nn.Module:
        return build_feedforward("moe", d_model, num_experts=num_experts, expert_hidden=hidden, router={"name": router})

    layers = {
        "dense, equal active width": build_feedforward("dense", d_model, hidden=2 * hidden),
        "8 experts, top-2": moe(8),
        "64 experts, top-2": moe(64),
    }
    if arguments.routers:
        layers |= {f"8 experts, {name}": moe(8, name) for name in list_routers() if name != "topk"}
    times = measure({name: training_pass(layer, x, ids) for name, layer in layers.items()}, arguments.repeats)
    print(f"{arguments.tokens} tokens, d_model {d_model}, expert_hidden {hidden}, {torch.get_num_threads()} thread(s)")
    for name, ms in times.items():
        print(f"{name:45s} {min(ms):9.2f} ms   [median {statistics.median(ms):.2f}, largest {max(ms):.2f}]")
    ratio = min(times["64 experts, top-2"]) / min(times["8 experts, top-2"])
    print(f"64 experts over 8 experts: {ratio:.2f}")


if __name__ == "__main__":
    main()
