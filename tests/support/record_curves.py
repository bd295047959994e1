"""Makes tests/data/curves.json, a table of real learning curves: `python -m tests.support.record_curves`.

27 epochs of five steps of byte models of 16 dimensions, for two mixers and eighteen learning rates each.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import workloads
from tests.support.ray_cluster import tiny_config

TABLE = Path(__file__).parents[1] / "data" / "curves.json"
EPOCHS, STEPS = 27, 5
MIXERS = ("mingru", "rg_lru")
RATES = tuple(round(10 ** (-4 + n / 6), 6) for n in range(18))


def recorded(mixer: str, lr: float) -> list[float]:
    """Validation bits a byte of one configuration after each epoch."""
    config = tiny_config(steps=EPOCHS * STEPS, eval_every=STEPS, lr=lr, batch_size=64, extrapolate=[])
    config["model"]["mixer"] = {"name": mixer}
    return [round(float(row["val_bpb"]), 4) for row in workloads.train({**config, "seed": 0})]


def main() -> None:
    """Trains every configuration to its end: two minutes on one core."""
    curves = {f"{mixer} {lr:g}": recorded(mixer, lr) for mixer, lr in itertools.product(MIXERS, RATES)}
    TABLE.parent.mkdir(exist_ok=True)
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(curve)}" for name, curve in curves.items())
    TABLE.write_text(f"{{\n{rows}\n}}\n")


if __name__ == "__main__":
    main()
