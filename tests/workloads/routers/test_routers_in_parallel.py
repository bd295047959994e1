"""Every router under data-parallel training: no parameter left out in any phase, state alike on all workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from tests.workloads.routers.zoo import NAMES, TIME, D
from workloads.config import ModelConfig
from workloads.shell import SequenceModel
from workloads.slots import for_each_router
from workloads.tasks.base import Signature

STEPS, WORKERS = 5, 2
# Options under which all phases of a method fall into the few steps
PHASES: dict[str, dict[str, Any]] = {
    "comet": {"search": 0.4},
    "dense_to_sparse": {"diversify": 0.3, "decay": 0.3, "hard": 0.7},
    "hash": {"table": "balanced", "counting": 0.3},
    "loss_free": {"update_rate": 0.1},
    "token_fusion": {"gate_only": 0.4},
}


def train(name: str, rank: int) -> dict[str, torch.Tensor]:
    """Some steps on this worker's own tokens; the model's state afterwards."""
    torch.manual_seed(0)
    router = {"name": name, **PHASES.get(name, {})}
    feedforward = {"name": "moe", "num_experts": 4, "expert_hidden": 8, "router": router}
    config = ModelConfig(d_model=D, n_layers=2, mixer={"name": "mingru"}, feedforward=feedforward)
    model = SequenceModel(config, Signature(vocab_size=32, outputs=32, sequence_length=TIME))
    # Without its search for unused parameters, DDP fails at the second step if any was left out of the first
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(rank)
    for step in range(STEPS):
        for_each_router(model, lambda part, step=step: part.set_progress(step, STEPS))
        output = parallel(torch.randint(0, 32, (2, TIME)))
        optimizer.zero_grad()
        (output.logits.square().mean() + sum(output.losses.values())).backward()
        optimizer.step()
        for_each_router(model, lambda part: part.after_step())
    return model.state_dict()


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORKERS)
    for name in NAMES:
        try:
            result: Any = train(name, rank)
        except RuntimeError as error:
            result = str(error)
        torch.save(result, Path(folder) / f"{name}-{rank}.pt")
        distributed.barrier()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("workers")
    multiprocessing.spawn(work, (str(path),), nprocs=WORKERS)
    return path


# Read by nobody but the worker that wrote it, and by rank 0 for all at the start of each forward pass
FOLLOWS_THE_FIRST = ("threshold", "key_counts")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_workers_agree_after_all_phases(folder: Path, name: str):
    states = [torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in range(WORKERS)]
    assert not any(isinstance(state, str) for state in states), states
    for key, value in states[0].items():
        if not key.endswith(FOLLOWS_THE_FIRST):
            assert torch.equal(value, states[1][key]), key
