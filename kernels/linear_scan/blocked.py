"""The scan in PyTorch operators: blocks of about √T steps side by side, then the carries from block to block.

About 2√T operators in place of T, at twice the arithmetic. Serves where the C form cannot be built.
"""

import math

import torch
from torch import Tensor


def forward(a: Tensor, x: Tensor, h0: Tensor | None, reverse: bool) -> Tensor:
    """The states h [B, T, D]; the inputs share one dtype."""
    if reverse:
        return forward(a.flip(1), x.flip(1), h0, reverse=False).flip(1)
    batch, steps, channels = x.shape
    size = math.isqrt(steps - 1) + 1
    blocks = -(-steps // size)
    decay, h = a.new_zeros(batch, blocks * size, channels), x.new_zeros(batch, blocks * size, channels)
    decay[:, :steps], h[:, :steps] = a, x
    decay, h = decay.view(batch, blocks, size, channels), h.view(batch, blocks, size, channels)
    for i in range(1, size):
        h[:, :, i].addcmul_(decay[:, :, i], h[:, :, i - 1])
        decay[:, :, i].mul_(decay[:, :, i - 1])
    carry = h0
    for n in range(blocks):
        if carry is not None:
            h[:, n].addcmul_(decay[:, n], carry[:, None])
        carry = h[:, n, -1]
    return h.view(batch, blocks * size, channels)[:, :steps].contiguous()


def backward(a: Tensor, h: Tensor, h0: Tensor | None, dh: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """(da, dx): the same recurrence walked the other way, with the decays of the step after."""
    first = torch.zeros_like(h[:, :1]) if h0 is None else h0[:, None]
    none = torch.zeros_like(a[:, :1])
    if reverse:
        decay, past = torch.cat([none, a[:, :-1]], dim=1), torch.cat([h[:, 1:], first], dim=1)
    else:
        decay, past = torch.cat([a[:, 1:], none], dim=1), torch.cat([first, h[:, :-1]], dim=1)
    dx = forward(decay.conj(), dh, None, reverse=not reverse)
    return dx * past.conj(), dx
