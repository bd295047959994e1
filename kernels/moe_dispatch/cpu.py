"""Dispatch and combine in whole-tensor PyTorch operations; autograd follows them.

Stable sorts of small integers stand in for the counting pass: on a CPU torch sorts integers by radix, which is
counting, and was measured faster than a cumulative count over a one-hot matrix, whose work grows with E.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.moe_dispatch.plan import DispatchPlan


def plan(token: Tensor, expert: Tensor, num_tokens: int, num_experts: int, per_token: int | None) -> DispatchPlan:
    """Group the assignments (token[m], expert[m]) by expert.

    ``per_token`` says that token n owns exactly the assignments [n * per_token, (n + 1) * per_token).
    """
    assignment = expert.argsort(stable=True)
    row_token = token[assignment]
    every = torch.arange(len(expert), device=expert.device)
    if per_token is not None:
        bag_row = torch.empty_like(assignment).scatter_(0, assignment, every)
        bag_assignment = every
        bag_start = torch.arange(num_tokens + 1, device=expert.device) * per_token
    else:
        bag_row = row_token.argsort(stable=True)
        bag_assignment = assignment[bag_row]
        bag_start = F.pad(_histogram(token, num_tokens).cumsum(0), (1, 0))
    counts = _histogram(expert, num_experts)
    return DispatchPlan(num_tokens, counts, assignment, row_token, bag_row, bag_assignment, bag_start)


def _histogram(value: Tensor, bins: int) -> Tensor:
    # scatter_add, not bincount: its result has a fixed shape, which torch.compile needs.
    ones = torch.ones((), dtype=torch.int64, device=value.device).expand(len(value))
    return torch.zeros(bins, dtype=torch.int64, device=value.device).scatter_add_(0, value, ones)


def dispatch(x: Tensor, plan: DispatchPlan) -> Tensor:
    """rows[r] = x[token[r]]."""
    return x.index_select(0, plan.token)


def combine(rows: Tensor, plan: DispatchPlan, weight: Tensor | None) -> Tensor:
    """y[n] = sum of weight * row over the rows of token n, summed in float32 or wider."""
    wide = torch.promote_types(rows.dtype, torch.float32)
    # An embedding bag is this very sum over a token's rows, in one pass and without a weighted copy of the rows.
    per_row = None if weight is None else weight.to(wide)[plan.bag_assignment]
    y = F.embedding_bag(
        plan.bag_row, rows.to(wide), plan.bag_start, mode="sum", per_sample_weights=per_row, include_last_offset=True
    )
    return y.to(rows.dtype)
