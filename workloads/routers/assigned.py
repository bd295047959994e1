"""Routers that balance by construction: experts choose tokens, or a solver assigns them.

Shapes: N tokens in G groups of T, D width, E experts.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.routers.assignment import balanced_assignment
from workloads.routers.base import Gate, GateRouter, largest, sequences, token_choice
from workloads.routers.options import assigned as configs
from workloads.slots import LayerContext, Routing


class ExpertChoice(GateRouter):
    """Every expert takes its best tokens (arXiv:2202.09368, sec. 3.2, eq. 2-3)."""

    threshold: Tensor
    updates: Tensor

    def __init__(self, d_model: int, num_experts: int, chosen: configs.ExpertChoice) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.active_experts = min(chosen.capacity_factor, float(num_experts))
        self.gate = Gate(d_model, num_experts)
        self.register_buffer("threshold", torch.full((num_experts,), 1 / num_experts))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns G·E·K assignments in training; a varying number under a threshold."""
        probs = self.gate(x).softmax(-1)
        if not self.training and self.options.inference == "threshold":
            token, expert = (probs.detach() >= self.threshold.to(probs.dtype)).nonzero(as_tuple=True)
            return Routing(token, expert, probs[token, expert], probs=probs.detach())
        groups = sequences(context, len(x))[0] if self.options.group == "sequence" else 1
        by_expert = probs.detach().view(groups, -1, self.num_experts).transpose(1, 2)
        size = by_expert.shape[-1]
        take = min(size, max(1, math.ceil(self.options.capacity_factor * size / self.num_experts)))
        values, place = by_expert.sort(dim=-1, descending=True, stable=True)
        token = place[..., :take] + (torch.arange(groups, device=x.device) * size)[:, None, None]
        expert = torch.arange(self.num_experts, device=x.device)[None, :, None].expand_as(token)
        if self.training:
            self._follow(values[..., take - 1].mean(0))
        token, expert = token.flatten(), expert.flatten()
        missed = 1 - torch.zeros(len(x), device=x.device).index_fill(0, token, 1.0).mean()
        return Routing(token, expert, probs[token, expert], stats={"missed_frac": missed}, probs=probs.detach())

    @torch.no_grad()
    def _follow(self, smallest: Tensor) -> None:
        """Keep the running mean of every expert's smallest accepted probability. Args: smallest [E]."""
        momentum = self.options.momentum * (self.updates > 0)
        self.threshold.copy_(momentum * self.threshold + (1 - momentum) * smallest)
        self.updates += 1


class Base(GateRouter):
    """Balanced assignment in training, argmax in evaluation (arXiv:2103.16716, eq. 1-3)."""

    def __init__(self, d_model: int, num_experts: int, chosen: configs.Base) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.centroids = nn.Parameter(nn.init.orthogonal_(torch.empty(num_experts, d_model), gain=0.1))

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N assignments."""
        scores = F.linear(x, self.centroids.to(x.dtype))
        best = largest(scores, 1)
        index = self._assign(scores.detach(), context) if self.training else best
        stats = {"moved_frac": (index != best).float().mean()}
        return token_choice(index, scores.gather(1, index).sigmoid(), stats=stats, probs=scores.detach().softmax(-1))

    def _assign(self, scores: Tensor, context: LayerContext) -> Tensor:
        groups = sequences(context, len(scores))[0] if self.options.group == "sequence" else 1
        # The solver needs finite numbers; a diverged model is the trainer's to report.
        table = scores.double().nan_to_num(0.0, 1e9, -1e9).view(groups, -1, self.num_experts).cpu().numpy()
        capacity = math.ceil(table.shape[1] / self.num_experts)
        index = [torch.from_numpy(balanced_assignment(group, capacity)) for group in table]
        return torch.cat(index)[:, None].to(scores.device)
