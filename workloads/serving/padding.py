"""The static-capacity form of a mixture, kept as what the dropless layer is compared with.

Every expert gets a block of C rows, filled or not, and all blocks are multiplied (GShard's dispatch, arXiv:2006.16668).
Dynamic gating (arXiv:2303.06182, sec. 5.1) is what `MoE` does: sort assignments by expert, run exactly their rows.
Shapes: N tokens, D width, E experts, C rows an expert, M assignments.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from workloads.feedforward.moe import MoE
from workloads.routers.base import within_capacity
from workloads.slots import Routing


class Padded(NamedTuple):
    """A static-capacity pass.

    y: [N, D].
    rows: rows that were multiplied, E·C.
    used: rows among them that held an assignment.
    """

    y: Tensor
    rows: int
    used: int

    @property
    def waste(self) -> float:
        """Multiplied rows over useful ones; 1 wastes nothing."""
        return self.rows / max(1, self.used)


def padded_mix(layer: MoE, tokens: Tensor, routing: Routing, capacity: int) -> Padded:
    """Carry a plan out in blocks of `capacity` rows an expert; what finds no room is dropped, in the plan's order.

    Args: tokens [N, D]; capacity C >= 1.
    """
    num_experts = layer.num_experts
    group = torch.zeros_like(routing.expert)
    fits = within_capacity(routing.expert, group, capacity, num_experts)
    token, expert, weight = routing.token[fits], routing.expert[fits], routing.weight[fits]
    order = expert.argsort(stable=True)
    token, expert, weight = token[order], expert[order], weight[order]
    counts = torch.bincount(expert, minlength=num_experts)
    place = torch.arange(len(expert), device=expert.device) - (counts.cumsum(0) - counts)[expert]
    blocks = tokens.new_zeros(num_experts, capacity, tokens.shape[1])
    blocks[expert, place] = tokens[token]
    full = torch.full((num_experts,), capacity, device=tokens.device)
    outputs, _ = layer.experts(blocks.flatten(0, 1), full)
    rows = outputs.view(num_experts, capacity, -1)[expert, place]
    y = torch.zeros_like(tokens).index_add(0, token, weight[:, None].to(rows.dtype) * rows)
    return Padded(y, num_experts * capacity, len(token))


def expected_waste(num_experts: int, capacity_share: float, k: int) -> float:
    """Multiplied rows over useful ones when each expert has room for `capacity_share` of the tokens: E·C/k."""
    return num_experts * capacity_share / k
