"""Gated linear attention, one step after the other. Slow and plainly right."""

import torch
from torch import Tensor


def chunk_gla(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, h0: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """S_t = diag(exp(g_t)) S_{t−1} + k_t v_tᵀ, o_t = q_t S_t; see :func:`kernels.chunk_gla`."""
    batch, steps, heads, keys = k.shape
    state = v.new_zeros(batch, heads, keys, v.shape[-1]) if h0 is None else h0
    outputs = []
    for t in range(steps):
        state = log_decay[:, t].exp()[..., None] * state + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append((q[:, t, :, :, None] * state).sum(dim=-2))
    return torch.stack(outputs, dim=1), state
