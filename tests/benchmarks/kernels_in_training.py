"""Tokens a second of training with the kernels and with their references in their place, on a CPU.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.kernels_in_training [--rounds 5]

Each round takes one training step of the same model with the one and then with the other, in the process's own time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch

from workloads import build_model, seeding

BATCH, LENGTH, D = 8, 128, 64
MOE = {"name": "moe", "num_experts": 8, "expert_hidden": 64, "router": {"name": "topk", "k": 2}}
MODELS = [(name, "dense") for name in ("rg_lru", "gla", "gated_deltanet", "lstm", "slstm")] + [("rg_lru", MOE)]


@contextmanager
def references() -> Iterator[None]:
    """Every operation of `kernels` in its plainest form."""
    loaded = [module for name, module in sys.modules.items() if name.startswith("kernels.")]
    with ExitStack() as stack:
        for module in (module for module in loaded if hasattr(module, "pick")):
            stack.enter_context(patch.object(module, "pick", lambda backend, tensor: "reference"))
        yield


def tokens_per_s(model: torch.nn.Module, tokens: torch.Tensor) -> float:
    """Of one step: forward, loss, backward, update."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    start = time.process_time()
    logits = model(tokens).logits[:, :-1]
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    optimizer.step()
    return tokens.numel() / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; batch {BATCH} x {LENGTH}, width {D}, 2 layers"
    )
    print(f"{'mixer':<18}{'feed-forward':<14}{'before':>9}{'after':>9}{'ratio':>8}   tokens/s")
    tokens = torch.randint(256, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    for mixer, feedforward in MODELS:
        seeding.seed_everything(0, "init")
        model = build_model({"model": {"d_model": D, "n_layers": 2, "mixer": mixer, "feedforward": feedforward}})
        tokens_per_s(model, tokens)
        pairs = []
        for _ in range(rounds):
            with references():
                before = tokens_per_s(model, tokens)
            pairs.append((before, tokens_per_s(model, tokens)))
        before, after = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        kind = feedforward if isinstance(feedforward, str) else feedforward["name"]
        print(f"{mixer:<18}{kind:<14}{before:>9.0f}{after:>9.0f}{ratio:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
