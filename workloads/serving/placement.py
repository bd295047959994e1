"""Places experts on devices so that no device gets much more than its share of the work, from recorded loads.

Minimises max over devices and batches of |Σ_{e on device} share[e, batch] − 1/D| greedily (arXiv:2303.06182, sec. 5.3).
Shapes: E experts, B batches, D devices.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

ANTICORRELATION = 0.5
"""Weight of the correlation with a device's load beside its mean load."""


def place(loads: Tensor, devices: int, method: Literal["greedy", "anticorrelated"] = "greedy") -> Tensor:
    """The device of each expert, [E] int64; every device gets E/D experts.

    greedy: heaviest mean load first, to the device with the least load so far. anticorrelated: a device's score is
    its mean load plus half the correlation over batches of its load with the expert's.

    Args:
        loads: assignments [E, B], as `recording` gives them.
        devices: D, which must divide E.

    Raises:
        ValueError: D does not divide E.
    """
    num_experts = len(loads)
    if devices < 1 or num_experts % devices:
        raise ValueError(f"devices ({devices}) must divide the {num_experts} experts")
    share = shares(loads)
    room = torch.full((devices,), num_experts // devices)
    on_device = torch.zeros(devices, share.shape[1])
    placement = torch.zeros(num_experts, dtype=torch.int64)
    for expert in share.mean(1).argsort(descending=True, stable=True).tolist():
        score = on_device.mean(1)
        if method == "anticorrelated":
            score = score + ANTICORRELATION * _correlation(on_device, share[expert])
        device = int(score.masked_fill(room == 0, torch.inf).argmin())
        placement[expert] = device
        on_device[device] += share[expert]
        room[device] -= 1
    return placement


def in_order(num_experts: int, devices: int) -> Tensor:
    """The placement without any thought: the first E/D experts on the first device, and so on."""
    return torch.arange(num_experts) * devices // num_experts


def largest_share(loads: Tensor, placement: Tensor, devices: int) -> float:
    """The largest share of one batch's work on one device; 1/D is even. Args: loads [E, B]; placement [E]."""
    return float(torch.zeros(devices, loads.shape[1]).index_add(0, placement, shares(loads)).max())


def shares(loads: Tensor) -> Tensor:
    """Loads as shares of their batch, [E, B] float32."""
    return loads.float() / loads.float().sum(0).clamp_min(1.0)


def _correlation(rows: Tensor, one: Tensor) -> Tensor:
    centred, other = rows - rows.mean(1, keepdim=True), one - one.mean()
    scale = centred.norm(dim=1) * other.norm()
    return torch.where(scale > 0, centred @ other / scale.clamp_min(1e-12), 0.0)
