"""Dispatch and combine as loops over assignments: the judge of the other forms."""

import torch
from torch import Tensor

from kernels.moe_dispatch.plan import DispatchPlan


def plan(token: Tensor, expert: Tensor, num_tokens: int, num_experts: int, per_token: int | None) -> DispatchPlan:
    """Group the assignments (token[m], expert[m]) by expert. ``per_token`` is not needed here."""
    tokens, experts = token.tolist(), expert.tolist()
    assignment = [m for e in range(num_experts) for m in range(len(experts)) if experts[m] == e]
    bags = [[r for r, m in enumerate(assignment) if tokens[m] == n] for n in range(num_tokens)]
    if per_token is not None:  # inside a token, entries follow its choices
        bags = [sorted(bag, key=assignment.__getitem__) for bag in bags]
    bag_row = [r for bag in bags for r in bag]
    starts = [0]
    for bag in bags:
        starts.append(starts[-1] + len(bag))

    def as_tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=token.device)

    return DispatchPlan(
        num_tokens=num_tokens,
        counts=as_tensor([experts.count(e) for e in range(num_experts)]),
        assignment=as_tensor(assignment),
        token=as_tensor([tokens[m] for m in assignment]),
        bag_row=as_tensor(bag_row),
        bag_assignment=as_tensor([assignment[r] for r in bag_row]),
        bag_start=as_tensor(starts),
    )


def dispatch(x: Tensor, plan: DispatchPlan) -> Tensor:
    """rows[r] = x[token[r]]."""
    return torch.stack([x[n] for n in plan.token.tolist()]) if len(plan.token) else x[:0]


def combine(rows: Tensor, plan: DispatchPlan, weight: Tensor | None) -> Tensor:
    """y[token[r]] += weight[assignment[r]] * rows[r], summed in float32 or wider."""
    wide = torch.promote_types(rows.dtype, torch.float32)
    y = [torch.zeros(rows.shape[1], dtype=wide, device=rows.device) for _ in range(plan.num_tokens)]
    for r, (n, m) in enumerate(zip(plan.token.tolist(), plan.assignment.tolist(), strict=True)):
        y[n] = y[n] + (rows[r].to(wide) if weight is None else weight[m].to(wide) * rows[r].to(wide))
    return torch.stack(y).to(rows.dtype) if y else rows[:0]
