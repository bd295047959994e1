"""HyperMoE: an adapter made from the experts that were not chosen.

Shapes: N tokens, D width, E experts, U distinct sets of chosen experts, a adapter width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import grouped_mm, moe_combine, moe_dispatch
from workloads.routers.noisy import NoisyTopK
from workloads.routers.options.hyper import HyperMoE as Options
from workloads.slots import Router, Routing

HEAD_SCALE = 1e-3


class Hypernetwork(nn.Module):
    """From (selection, layer embedding) [U, ·] to an adapter's four tensors (arXiv:2402.12656, eq. 6-8)."""

    def __init__(self, d_model: int, chosen: Options) -> None:
        super().__init__()
        self.d_model, self.adapter = d_model, chosen.adapter
        self.hidden = nn.Linear(chosen.hidden + chosen.layer_embedding, chosen.hidden)
        self.down = _head(chosen.hidden, d_model * chosen.adapter, fan_main=d_model)
        self.up = _head(chosen.hidden, chosen.adapter * d_model, fan_main=chosen.adapter)
        self.down_bias = _head(chosen.hidden, chosen.adapter, fan_main=1)
        self.up_bias = _head(chosen.hidden, d_model, fan_main=1)

    def forward(self, condition: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Args: condition [U, ·]. Returns down [U, D, a], its bias [U, a], up [U, a, D], its bias [U, D]."""
        h = F.relu(self.hidden(condition))
        down = self.down(h).view(-1, self.d_model, self.adapter)
        up = self.up(h).view(-1, self.adapter, self.d_model)
        return down, self.down_bias(h), up, self.up_bias(h)


def _head(fan_in: int, size: int, fan_main: int) -> nn.Linear:
    head = nn.Linear(fan_in, size)
    bound = HEAD_SCALE * math.sqrt(3 / (fan_in * fan_main))
    nn.init.uniform_(head.weight, -bound, bound)
    nn.init.zeros_(head.bias)
    return head


class HyperMoE(NoisyTopK):
    """Noisy top-k and the adapter of the unselected experts (arXiv:2402.12656, eq. 4-9)."""

    options: Options

    def __init__(self, d_model: int, num_experts: int, chosen: Options) -> None:
        super().__init__(d_model, num_experts, chosen)
        self.expert_embeddings = nn.Parameter(torch.randn(num_experts, chosen.embedding) * chosen.embedding**-0.5)
        self.selection = nn.Sequential(
            nn.Linear(chosen.embedding, chosen.hidden), nn.ReLU(), nn.Linear(chosen.hidden, chosen.hidden)
        )
        self.layer_embedding = nn.Parameter(torch.randn(chosen.layer_embedding) * chosen.layer_embedding**-0.5)
        self.hypernetwork = Hypernetwork(d_model, chosen)

    def refine(self, x: Tensor, y: Tensor, routing: Routing) -> Tensor:
        """y plus every token's adapter. Args: x, y [N, D]."""
        if not len(x):
            return y
        chosen = routing.expert.view(len(x), self.k).sort(dim=-1).values
        sets, group = torch.unique(chosen, dim=0, return_inverse=True)
        down, down_bias, up, up_bias = self.adapters(sets)
        rows, plan = moe_dispatch(x, group, len(sets), token=torch.arange(len(x), device=x.device))
        own = group[plan.token]
        hidden = F.relu(grouped_mm(rows, down.to(rows.dtype), plan.counts) + down_bias.to(rows.dtype)[own])
        added = moe_combine(grouped_mm(hidden, up.to(hidden.dtype), plan.counts), plan) + up_bias.to(x.dtype)[group]
        routing.stats["adapter_rms"] = added.detach().float().square().mean().sqrt()
        return y + added.to(y.dtype)

    def adapters(self, sets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The adapter of each set of chosen experts. Args: sets [U, k] int64. Returns what `Hypernetwork` does."""
        embeddings = self.expert_embeddings
        unselected = embeddings.sum(0) - embeddings[sets].sum(1)
        selection = self.selection(unselected)
        return self.hypernetwork(torch.cat([selection, self.layer_embedding.expand(len(sets), -1)], dim=-1))

    def place(self, routers: Sequence[Router], index: int) -> None:
        """Use the hypernetwork of the first layer that has one of the same sizes."""
        if not self.options.share_hypernetwork:
            return
        first = next(each for each in routers if isinstance(each, HyperMoE) and each.options == self.options)
        self.hypernetwork = first.hypernetwork
