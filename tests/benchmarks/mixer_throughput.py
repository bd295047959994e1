"""Throughput of every mixer: `python -m tests.benchmarks.mixer_throughput [--width 64] [--length 2048] [mixer ...]`.

Prints a Markdown table. For each mixer at its default options:

train        tokens a second of forward and backward over the whole sequence
parallel     milliseconds of one forward pass over the whole sequence, without gradient
step         microseconds of one step with a carried state, without gradient
gain         time of the sequence as a loop of steps over the time of the forward pass
state        bytes carried after the whole sequence, for one sequence

Each figure is the least of `--repeats` runs: what disturbs a run only lengthens it. On one thread of a CPU it is the
process's own CPU time, which other work on the machine disturbs less; else wall-clock time. The last line holds the
least gain of the linear recurrences, starred in the table, against the goal of 10 at T = 2048.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from workloads import build_mixer, list_mixers
from workloads.slots import Mixer

LOOP_STEPS = 128
GOAL = 10
# fmt: off
LINEAR_RECURRENCES = {
    "deltanet", "gated_deltanet", "gateloop", "gla", "griffin", "gsa", "gss", "hgrn", "hgrn2", "liger", "mamba2",
    "mingru", "minlstm", "retnet", "rfa", "rg_lru", "rwkv4", "seqboat",
}
# fmt: on


@dataclass(frozen=True, slots=True)
class Row:
    """One mixer's figures, units in the names."""

    name: str
    parameters: int
    train_tokens_per_s: float
    parallel_ms: float
    step_us: float
    gain: float
    state_bytes: int


def best_of(repeats: int, device: str, run: Callable[[], object]) -> float:
    """Seconds of the fastest of `repeats` runs, after one that is not counted."""
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    seconds = []
    for _ in range(repeats + 1):
        start = clock()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    return min(seconds[1:])


def measure(name: str, width: int, batch: int, length: int, repeats: int, device: str) -> Row:
    """The row of one mixer."""
    torch.manual_seed(0)
    mixer: Mixer = build_mixer(name, width).to(device)
    x = torch.randn(batch, length, width, device=device)

    def train() -> None:
        mixer.zero_grad(set_to_none=True)
        mixer(x)[0].square().mean().backward()

    @torch.no_grad()
    def parallel() -> None:
        mixer(x)

    with torch.no_grad():
        # late in the sequence, where a state that grows has its size
        _, warm = mixer(x[:, : length - LOOP_STEPS])

    @torch.no_grad()
    def loop() -> None:
        state = warm
        for token in x[:, -LOOP_STEPS:].unbind(1):
            _, state = mixer.step(token, state)

    train_s, parallel_s = best_of(repeats, device, train), best_of(repeats, device, parallel)
    step_s = best_of(repeats, device, loop) / LOOP_STEPS
    return Row(
        name=name,
        parameters=sum(p.numel() for p in mixer.parameters()),
        train_tokens_per_s=batch * length / train_s,
        parallel_ms=1e3 * parallel_s,
        step_us=1e6 * step_s,
        gain=step_s * length / parallel_s,
        state_bytes=mixer.state_bytes(1, length),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mixers", nargs="*", default=list_mixers())
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    print(f"D = {args.width}, B = {args.batch}, T = {args.length}, float32, {args.device}, torch {torch.__version__}, "
          f"{torch.get_num_threads()} thread(s)\n")  # fmt: skip
    print("| mixer | parameters | train tokens/s | parallel ms | step µs | gain | state bytes |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    gains = {}
    for name in args.mixers or list_mixers():
        row = measure(name, args.width, args.batch, args.length, args.repeats, args.device)
        if name in LINEAR_RECURRENCES:
            gains[name] = row.gain
        print(
            f"| {row.name}{'*' if name in gains else ''} | {row.parameters:,} | {row.train_tokens_per_s:,.0f} "
            f"| {row.parallel_ms:.1f} | {row.step_us:.0f} | {row.gain:.{0 if row.gain >= GOAL else 1}f}× "
            f"| {row.state_bytes:,} |",
            flush=True,
        )
    if gains:
        least = min(gains, key=lambda name: gains[name])
        met = "met" if gains[least] >= GOAL else "missed"
        print(f"\nleast gain of {len(gains)} linear recurrences: {gains[least]:.0f}× ({least}); goal {GOAL}×: {met}")


if __name__ == "__main__":
    main()
