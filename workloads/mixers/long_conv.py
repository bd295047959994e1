"""Causal convolution as long as the sequence, by FFT, and the powers of poles that its kernels are made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def long_convolution(x: Tensor, kernel: Tensor) -> Tensor:
    """y_t = Σ_{s ≤ t} kernel_{t−s} ⊙ x_s.

    Args:
        x: [B, T, D], float32 or float64.
        kernel: [D, T], lag by lag, real.

    Returns:
        y [B, T, D]. Work O(T log T) a channel. Rounding spreads over all steps, later ones included.
    """
    steps = x.shape[1]
    # twice the length: the transform is circular, and the tail must not come round to the front
    spectrum = torch.fft.rfft(x, n=2 * steps, dim=1) * torch.fft.rfft(kernel, n=2 * steps, dim=1).T
    return torch.fft.irfft(spectrum, n=2 * steps, dim=1)[:, :steps]


def powers(log_pole: Tensor, steps: int) -> Tensor:
    """exp(log_pole · l) for l = 0 .. steps − 1: [..., N] -> [..., N, steps], real or complex.

    As products of √steps coarse and √steps fine powers: an exponential costs ten times a product.
    """
    block = math.isqrt(steps - 1) + 1
    fine = torch.arange(block, device=log_pole.device)
    coarse = torch.exp(log_pole[..., None] * (fine * block))[..., None]
    return (coarse * torch.exp(log_pole[..., None] * fine)[..., None, :]).flatten(-2)[..., :steps]
