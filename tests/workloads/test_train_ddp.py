"""The same trial on 1, 2 and 4 workers gives the same loss curve up to rounding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing

from workloads import train

# A real text, and short, so that evaluations take no time
CORPUS = str(Path(__file__).parents[2] / "LICENSE")
FEEDFORWARDS = {
    "dense": {"name": "dense", "hidden": 16},
    "moe": {"name": "moe", "num_experts": 8, "expert_hidden": 8, "router": {"name": "topk", "balance_weight": 0.1}},
}


def a_config(feedforward: str) -> dict[str, Any]:
    return {
        "task": {"name": "bytes_lm", "corpus": CORPUS},
        "model": {"d_model": 16, "n_layers": 1, "mixer": "gru", "feedforward": FEEDFORWARDS[feedforward]},
        "training": {
            "steps": 9, "batch_size": 8, "sequence_length": 64, "lr": 1e-2, "warmup_steps": 2, "eval_every": 3,
            "figures": False,
        },
        "seed": 1,
    }  # fmt: skip


def work(rank: int, folder: str) -> None:
    """One process, a worker of two and then of four; on one thread, so that a small machine can hold them all."""
    torch.set_num_threads(1)
    for world in (2, 4):
        if rank < world:
            meeting = f"file://{folder}/meet-{world}"
            distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
            for name in FEEDFORWARDS:
                directory = Path(folder) / f"{name}-{world}"
                rows = list(train(a_config(name), checkpoint_dir=directory))
                resumed = list(train(a_config(name), resume_from=directory))
                (Path(folder) / f"{name}-{world}-{rank}.json").write_text(json.dumps([rows, resumed]))
            distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("workers")
    multiprocessing.spawn(work, (str(path),), nprocs=4)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("name", FEEDFORWARDS)
def test_the_loss_curve_does_not_depend_on_the_number_of_workers(folder: Path, name: str, world: int):
    alone = list(train(a_config(name)))
    rows = json.loads((folder / f"{name}-{world}-0.json").read_text())[0]
    assert [row["step"] for row in rows] == [row["step"] for row in alone]
    for a, b in zip(alone, rows, strict=True):
        for column in ("train_loss", "val_bpb", "grad_norm"):
            # float32 sums in another order; Adam's division lifts the difference where gradients are near zero
            assert b[column] == pytest.approx(a[column], rel=2e-3), (column, a["step"])


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("name", FEEDFORWARDS)
def test_all_workers_report_the_same_rows(folder: Path, name: str, world: int):
    reports = {(folder / f"{name}-{world}-{rank}.json").read_text() for rank in range(world)}
    assert len(reports) == 1


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_one_checkpoint_a_report_is_written_and_taken_up_by_all(folder: Path, world: int):
    rows, resumed = json.loads((folder / f"dense-{world}-{world - 1}.json").read_text())
    assert resumed == [rows[-1]]
    assert len(list((folder / f"dense-{world}").glob("step-*"))) == 2
