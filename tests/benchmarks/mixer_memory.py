"""State tracking and recall in small real runs: `python -m tests.benchmarks.mixer_memory {parity,recall,decay}`.

parity   one layer of width 32, 1,500 steps on 3 to 40 bits with the parity asked at each; scored on 41 to 256 bits.
         The literature (arXiv:2405.04517, 2411.12537): state in the gates, or β up to 2, solves it; gates of the input
         alone, and attention, do not.
recall   two layers of width 64, 1,500 steps of MQAR, 32 tokens with 4 pairs, states of 256 numbers a layer but for
         attention, a convolution of width 4 in all. The literature (arXiv:2312.04927, 2412.06464): attention and the
         delta rule solve it, element-wise states do not.
decay    four layers of HGRN, 300 steps of bytes, with and without its lower bound: effective memory by layer, in steps.

Prints a Markdown table; one seed a row, `--seed` for others.
"""

from __future__ import annotations

import argparse
import time
from importlib.resources import files
from typing import Any

import torch

from workloads import TrialConfig, build_model, train
from workloads.mixers.base import ObservedMixer

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
RECALL: list[tuple[Mixer, float]] = [
    ({"name": "attention", "conv_width": 4}, 3e-3),
    ({"name": "gated_deltanet", "num_heads": 1, "head_dim": 16, "expand_v": 1.0}, 3e-3),
    ({"name": "gla", "num_heads": 4, "expand_k": 0.25, "conv_width": 4}, 3e-3),
    ({"name": "hgrn", "expand": 4.0, "conv_width": 4}, 3e-3),
]


def row(mixer: Mixer, config: dict[str, Any], *names: str) -> None:
    """Train and print one line."""
    start = time.perf_counter()
    *_, report = train(config)
    options = ", ".join(f"{key}={value}" for key, value in mixer.items() if key != "name")
    figures = " | ".join(f"{report[name]:.3f}" for name in names)
    print(f"| {mixer['name']} {options} | {figures} | {time.perf_counter() - start:.0f} |", flush=True)


def parity(seed: int) -> None:
    """Accuracy on 41 to 256 bits."""
    print("| mixer | trained lengths | 41-94 bits | 203-256 bits | s |\n|---|---:|---:|---:|---:|")
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


def recall(seed: int) -> None:
    """Share of queries answered right."""
    print("| mixer | queries right | s |\n|---|---:|---:|")
    for mixer, lr in RECALL:
        config = {
            "task": {"name": "mqar", "vocab_size": 128, "num_pairs": 4},
            "model": {"d_model": 64, "n_layers": 2, "mixer": mixer},
            "training": {
                "steps": 1500, "batch_size": 64, "lr": lr, "warmup_steps": 100, "eval_every": 1500,
                "sequence_length": 32,
            },
            "seed": seed,
        }  # fmt: skip
        row(mixer, config, "val_accuracy")


def decay(seed: int) -> None:
    """Effective memory of each layer after training, measured on the model that `train` leaves."""
    print("| lower bound | " + " | ".join(f"layer {i}" for i in range(4)) + " |\n|---|---:|---:|---:|---:|")
    for bounded in (True, False):
        config = TrialConfig.parse(
            {"model": {"d_model": 32, "n_layers": 4, "mixer": {"name": "hgrn", "lower_bound": bounded}}, "seed": seed}
        )
        torch.manual_seed(seed)
        model = build_model(config)
        text = torch.frombuffer(bytearray(sample_text()), dtype=torch.uint8).long()
        optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(300):
            starts = torch.randint(len(text) - 129, (16,))
            batch = torch.stack([text[s : s + 129] for s in starts.tolist()])
            loss = torch.nn.functional.cross_entropy(model(batch[:, :-1]).logits.flatten(0, 1), batch[:, 1:].flatten())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        mixers = [m for m in model.modules() if isinstance(m, ObservedMixer)]
        for mixer in mixers:
            mixer.record_gates = True
        with torch.no_grad():
            model(batch[:, :-1])
        steps = [mixer.last_gate["memory_steps"] for mixer in mixers if mixer.last_gate]
        print(f"| {'yes' if bounded else 'no'} | " + " | ".join(f"{value:.2f}" for value in steps) + " |", flush=True)


def sample_text() -> bytes:
    """The shipped corpus."""
    return (files("workloads") / "data" / "python_reference.txt").read_bytes()


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runs = {"parity": parity, "recall": recall, "decay": decay}
    parser.add_argument("run", choices=runs)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    runs[args.run](args.seed)


if __name__ == "__main__":
    main()
