"""Makes tests/data/curves.json, a table of real learning curves: `python -m tests.support.record_curves`.

27 epochs of ten steps of byte models of 16 dimensions, for three mixers and twelve learning rates each.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import workloads
from tests.support.ray_cluster import tiny_config

TABLE = Path(__file__).parents[1] / "data" / "curves.json"
EPOCHS, STEPS = 27, 10
MIXERS = ("gru", "mingru", "rg_lru")
RATES = tuple(round(10 ** (-4 + n * 0.25), 6) for n in range(12))


def main() -> None:
    """Trains every configuration to its end."""
    curves = {}
    for mixer, lr in itertools.product(MIXERS, RATES):
        config = tiny_config(steps=EPOCHS * STEPS, eval_every=STEPS, lr=lr)
        config["model"]["mixer"] = {"name": mixer}
        rows = workloads.train({**config, "seed": 0})
        curves[f"{mixer} {lr:g}"] = [round(float(row["val_bpb"]), 4) for row in rows]
        print(f"{mixer} {lr:g}: {curves[f'{mixer} {lr:g}'][-1]}", flush=True)
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(
        "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(curve)}" for name, curve in curves.items()) + "\n}\n"
    )


if __name__ == "__main__":
    main()
