"""State tracking and memory by layer in small real runs: `python -m tests.benchmarks.mixer_memory {parity,decay}`.

parity   one layer of width 32, 1,500 steps on 3 to 40 bits with the parity asked at each; scored on 41 to 256 bits.
         The literature (arXiv:2405.04517, 2411.12537): state in the gates, or β up to 2, solves it; gates of the input
         alone, and attention, do not.
decay    four layers of HGRN, width 32, 300 steps of bytes, with and without its lower bound: half-life of each layer's
         state in steps (median over units), as every trial reports it. The paper (arXiv:2311.04823): the bound has
         upper layers remember longer.

Prints a Markdown table, a row a seed. Recall at equal state is a sweep: sweeps/mqar_recall.yaml.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from workloads import train

Mixer = dict[str, Any]

PARITY: list[tuple[Mixer, float]] = [
    ({"name": "gru"}, 1e-2),
    ({"name": "lstm"}, 1e-2),
    ({"name": "slstm", "num_heads": 1}, 1e-2),
    ({"name": "deltanet", "max_beta": 2.0}, 3e-3),
    ({"name": "deltanet", "max_beta": 1.0}, 3e-3),
    ({"name": "hgrn"}, 1e-2),
    ({"name": "attention"}, 3e-3),
]
LAYERS = 4


def row(mixer: Mixer, config: dict[str, Any], *columns: str) -> None:
    """Train and print one line: the mixer, the seed, columns of the last report, seconds."""
    start = time.perf_counter()
    *_, report = train(config)
    options = ", ".join(f"{key}={value}" for key, value in mixer.items() if key != "name")
    figures = " | ".join(f"{report[name]:.3f}" for name in columns)
    seconds = time.perf_counter() - start
    print(f"| {mixer['name']} {options} | {config['seed']} | {figures} | {seconds:.0f} |", flush=True)


def parity(seeds: range) -> None:
    """Accuracy on trained lengths, on 41 to 94 and on 203 to 256 bits."""
    print("| mixer | seed | 3-40 bits | 41-94 bits | 203-256 bits | s |\n|---|---:|---:|---:|---:|---:|")
    for seed in seeds:
        for mixer, lr in PARITY:
            config = {
                "task": {"name": "parity", "answer": "each"},
                "model": {"d_model": 32, "n_layers": 1, "mixer": mixer},
                "training": {
                    "steps": 1500, "batch_size": 64, "lr": lr, "warmup_steps": 50, "weight_decay": 0.0,
                    "eval_every": 1500, "sequence_length": 41,
                },
                "seed": seed,
            }  # fmt: skip
            row(mixer, config, "val_accuracy_trained", "val_accuracy_q1", "val_accuracy_q4")


def decay(seeds: range) -> None:
    """Half-life of each layer's state after training."""
    columns = " | ".join(f"layer {i}" for i in range(LAYERS))
    print(f"| mixer | seed | {columns} | s |\n|---|{'---:|' * (LAYERS + 2)}")
    for seed in seeds:
        for bounded in (True, False):
            mixer = {"name": "hgrn", "lower_bound": bounded}
            config = {
                "model": {"d_model": 32, "n_layers": LAYERS, "mixer": mixer},
                "training": {"steps": 300, "eval_every": 300, "extrapolate": []},
                "seed": seed,
            }
            row(mixer, config, *(f"memory/half_life/{i}" for i in range(LAYERS)))


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runs = {"parity": parity, "decay": decay}
    parser.add_argument("run", choices=runs)
    parser.add_argument("--seeds", type=int, default=1, help="train with seeds 0, 1, ...")
    args = parser.parse_args()
    runs[args.run](range(args.seeds))


if __name__ == "__main__":
    main()
