"""The element-wise linear recurrence, one step after the other. Slow and plainly right."""

import torch
from torch import Tensor


def linear_scan(a: Tensor, x: Tensor, h0: Tensor | None = None, reverse: bool = False) -> Tensor:
    """h_t = a_t ⊙ h_{t−1} + x_t in the precision of the inputs; see :func:`kernels.linear_scan`."""
    h = torch.zeros_like(x[:, 0]) if h0 is None else h0
    steps = range(x.shape[1])
    states = []
    for t in reversed(steps) if reverse else steps:
        h = a[:, t] * h + x[:, t]
        states.append(h)
    return torch.stack(states[::-1] if reverse else states, dim=1)
