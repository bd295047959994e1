"""Seeds: one derivation, no collisions between neighbours."""

from __future__ import annotations

import random

import numpy as np
import torch

from workloads import seeding


def test_the_same_purpose_gives_the_same_numbers():
    a, b = (seeding.numpy_generator(7, "data", 3).random(4) for _ in range(2))
    assert (a == b).all()
    assert torch.equal(*(torch.rand(4, generator=seeding.torch_generator(7, "probe")) for _ in range(2)))


def test_neighbouring_seeds_and_steps_do_not_share_streams():
    seeds = {seeding.derive(seed, "data", step) for seed in range(50) for step in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_derivation_is_frozen_because_published_results_depend_on_it():
    assert seeding.derive(0, "data", 1) == 448221727276437717


def test_all_global_generators_are_seeded():
    def drawn() -> tuple[float, float, float]:
        seeding.seed_everything(1, "step", 2, 0)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert drawn() == drawn()
