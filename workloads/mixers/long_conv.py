"""Causal convolution as long as the sequence, by FFT."""

from __future__ import annotations

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
