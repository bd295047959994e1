"""Every random number of a trial comes from (seed, purpose): one derivation for all generators."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch

Purpose = str | int


def derive(seed: int, *purpose: Purpose) -> int:
    """A 63-bit seed for one purpose, unrelated to that of any other purpose or seed.

    Hashed, not added up: `seed + step` would give seed 1 at step 0 the numbers of seed 0 at step 1.
    """
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def numpy_generator(seed: int, *purpose: Purpose) -> np.random.Generator:
    """A numpy generator of its own for one purpose, such as `("data", step)`."""
    return np.random.Generator(np.random.Philox(derive(seed, *purpose)))


def torch_generator(seed: int, *purpose: Purpose) -> torch.Generator:
    """A CPU torch generator of its own for one purpose."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


def seed_everything(seed: int, *purpose: Purpose) -> None:
    """Set the global generators of Python, numpy and torch (all devices) for one purpose."""
    derived = derive(seed, *purpose)
    random.seed(derived)
    np.random.seed(derived % 2**32)
    torch.manual_seed(derived)
