"""The gated delta rule, one step after the other. Slow and plainly right."""

import torch
from torch import Tensor


def gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, h0: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """S = exp(g_t) S_{t−1}; S_t = S + k_t (β_t (v_t − Sᵀk_t))ᵀ; o_t = q_t S_t; see :func:`kernels.gated_delta_rule`."""
    batch, steps, heads, keys = k.shape
    state = v.new_zeros(batch, heads, keys, v.shape[-1]) if h0 is None else h0
    outputs = []
    for t in range(steps):
        key = k[:, t, :, :, None]
        state = log_decay[:, t, :, None, None].exp() * state
        error = v[:, t] - (key * state).sum(dim=-2)
        state = state + key * (beta[:, t, :, None] * error)[..., None, :]
        outputs.append((q[:, t, :, :, None] * state).sum(dim=-2))
    return torch.stack(outputs, dim=1), state
