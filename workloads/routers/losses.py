"""Auxiliary losses that several routers share. Shapes: N tokens, E experts, k experts a token. All unweighted."""

from __future__ import annotations

import torch
from torch import Tensor

from workloads.routers.base import counts_of, summed_over_ranks

EPS = 1e-10


def balance(probs: Tensor, chosen: Tensor, *, training: bool = True) -> Tensor:
    """E · Σ_e f_e p̄_e: f_e the choices of e over N, without gradient; p̄_e the mean probability of e.

    1 where one choice a token is perfectly uniform, k where k are counted, E where all go to one. In training f is
    taken over all data-parallel workers, which makes the mean over workers of this loss that of one worker on the
    whole batch.

    Args:
        probs: [N, E].
        chosen: [N] or [N, k] int64, the choices that count.
    Source: Switch Transformers, arXiv:2101.03961, eq. 4-6; GShard, arXiv:2006.16668, sec. 2.2.
    """
    num_experts = probs.shape[1]
    # The number of tokens rides along: workers may hold different numbers.
    local = torch.cat([counts_of(chosen, num_experts), torch.full((1,), float(len(probs)), device=probs.device)])
    total = summed_over_ranks(local, when=training)
    fraction = total[:-1] / total[-1].clamp_min(1.0)
    return num_experts * (fraction.to(probs.dtype) * probs.sum(0)).sum() / max(len(probs), 1)


def z_loss(logits: Tensor) -> Tensor:
    """mean (logsumexp z)², (ln E)² at z = 0. Args: logits [N, E]. Source: ST-MoE, arXiv:2202.08906, eq. 5."""
    return logits.logsumexp(-1).square().sum() / max(len(logits), 1)


def cv_squared(value: Tensor) -> Tensor:
    """Variance over squared mean of [E] (unbiased variance, as reference code has it); 0 for one expert.

    Source: arXiv:1701.06538, eq. 7.
    """
    if len(value) < 2:
        return value.sum() * 0
    return value.var() / (value.mean().square() + EPS)


def entropy(probs: Tensor, eps: float = 1e-6) -> Tensor:
    """mean −Σ p ln(p + eps) over the rows of [N, E]."""
    return -(probs * (probs + eps).log()).sum(-1).mean()
