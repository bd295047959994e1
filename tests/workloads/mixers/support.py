"""What the mixers' tests share: mixers away from their initialisation, and their inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from workloads import build_mixer
from workloads.slots import Mixer

WIDTH = 16


def built(name: str, width: int = WIDTH, *, dtype: torch.dtype = torch.float64, seed: int = 0, **options: Any) -> Mixer:
    """A mixer moved away from its initialisation, where zeros would hide errors."""
    torch.manual_seed(seed)
    mixer = build_mixer(name, width, **options).to(dtype)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        if options.get("spiking"):
            mixer.out.weight.mul_(10)  # so that its neurons fire
    return mixer


def sequence(steps: int, width: int = WIDTH, *, dtype: torch.dtype = torch.float64, batch: int = 2) -> Tensor:
    """Standard normal inputs [B, T, D], the same for the same length."""
    generator = torch.Generator().manual_seed(steps)
    return torch.randn(batch, steps, width, generator=generator, dtype=torch.float64).to(dtype)


@torch.no_grad()
def copy(target: Tensor | nn.Module, source: Tensor | nn.Module) -> None:
    """Give `target` the values of `source`, a tensor or a module of the same kind."""
    if isinstance(target, nn.Module):
        assert isinstance(source, nn.Module)
        target.load_state_dict(source.state_dict())
    else:
        assert isinstance(source, Tensor)
        target.copy_(source)
