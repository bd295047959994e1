"""COMET: soft decision trees that choose experts, and a search for the experts' placement.

Shapes: N tokens, D width, E experts, k trees of depth m with L = 2^m leaves and L − 1 nodes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workloads.routers.assignment import balanced_assignment
from workloads.routers.base import INIT_STD, nonzero
from workloads.routers.dselect import missing_mass, num_bits, smooth_step
from workloads.routers.losses import entropy
from workloads.routers.options.selectors import Comet as Options
from workloads.routers.schedule import ScheduledRouter
from workloads.slots import LayerContext, Routing

TEMPERATURES = (1e-3, 1e-7)
ITERATIONS = (20, 150)
PATH_EPS = 1e-8


class Comet(ScheduledRouter):
    """Joint softmax over the leaves of k soft trees, then a permutation (COMET, KDD 2023, sec. 4-5)."""

    placement: Tensor
    frozen: Tensor

    def __init__(self, d_model: int, num_experts: int, chosen: Options) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.active_experts = min(chosen.k, num_experts)
        self.depth = num_bits(num_experts)
        grows = num_experts > 1
        leaves = 2**self.depth
        self.node_weight = nn.Parameter(torch.randn(chosen.k, leaves - 1, d_model) * INIT_STD, requires_grad=grows)
        self.node_bias = nn.Parameter(torch.zeros(chosen.k, leaves - 1), requires_grad=grows)
        self.leaf_weight = nn.Parameter(torch.randn(chosen.k, num_experts, d_model) * INIT_STD)
        self.leaf_bias = nn.Parameter(torch.zeros(chosen.k, num_experts))
        searches = chosen.search > 0 and grows
        # In units of the first temperature, so that an optimiser's usual step moves R by a usual amount.
        self.scores = nn.Parameter(torch.randn(num_experts, num_experts)) if searches else None
        self.register_buffer("placement", torch.arange(num_experts))
        self.register_buffer("frozen", torch.tensor(not searches))

    def paths(self, x: Tensor) -> Tensor:
        """Path probabilities v [N, k, L], each row summing to one. Args: x [N, D]."""
        logits = torch.einsum("nd,kjd->nkj", x, self.node_weight.to(x.dtype)) + self.node_bias
        left = smooth_step(logits, self.options.gamma)
        v = x.new_ones(len(x), self.options.k, 1)
        for level in range(self.depth):
            here = left[..., 2**level - 1 : 2 ** (level + 1) - 1]
            v = torch.stack([v * here, v * (1 - here)], dim=-1).flatten(-2)
        return v

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns one assignment a non-zero gate."""
        paths = self.paths(x)
        v = paths[..., : self.num_experts]
        leaf = torch.einsum("nd,ked->nke", x, self.leaf_weight.to(x.dtype)) + self.leaf_bias
        # Far below any logit, so that its softmax is exactly 0; not -inf, which a tree without mass would make NaN.
        scores = torch.where(v > 0, leaf + (v + PATH_EPS).log(), torch.finfo(x.dtype).min / 2)
        gate = scores.flatten(1).softmax(-1).view_as(scores).sum(1)
        losses = self._losses(paths, v)
        gate, hardness = self._permuted(gate, losses)
        stats = {"permutation_hardness": hardness, "path_peak": paths.detach().max(-1).values.mean()}
        return nonzero(gate, aux_losses=losses, stats=stats, probs=gate.detach())

    def permutation(self) -> Tensor:
        """R [E, E], doubly stochastic, at this moment of the search."""
        assert self.scores is not None
        fraction = min(self.progress / self.options.search, 1.0)
        (warm, cold), (few, many) = TEMPERATURES, ITERATIONS
        temperature = warm * (cold / warm) ** fraction
        return sinkhorn(self.scores * (warm / temperature), round(few + (many - few) * fraction))

    def _permuted(self, gate: Tensor, losses: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The gate over the experts as they are placed, and how near R is to a permutation (1 is there)."""
        if self.scores is None:
            return gate, gate.new_ones(())
        if bool(self.frozen):
            # Data-parallel training wants every parameter in the graph, search or no search.
            return gate[:, self.placement.argsort()] + 0 * self.scores.sum(), gate.new_ones(())
        r = self.permutation().to(gate.dtype)
        losses["permutation"] = self.options.search_weight * (entropy(r) + entropy(r.t())) * self.num_experts
        return gate @ r, r.detach().max(-1).values.mean()

    def _losses(self, paths: Tensor, v: Tensor) -> dict[str, Tensor]:
        losses = {}
        if self.options.entropy_weight and self.depth:
            losses["path_entropy"] = self.options.entropy_weight * entropy(paths.flatten(0, 1)) * self.options.k
        if self.options.code_weight and paths.shape[-1] > self.num_experts:
            losses["codes"] = self.options.code_weight * missing_mass(v)
        return losses

    @torch.no_grad()
    def set_progress(self, step: int, total_steps: int) -> None:
        """Round R to a permutation once the search is over."""
        super().set_progress(step, total_steps)
        if self.scores is None or bool(self.frozen) or self.progress < self.options.search:
            return
        best = balanced_assignment(self.permutation().double().cpu().numpy(), capacity=1)
        self.placement.copy_(torch.from_numpy(best))
        self.frozen.fill_(True)


def sinkhorn(logits: Tensor, iterations: int) -> Tensor:
    """exp(logits) with rows and columns normalised in turn, in log space. Args: logits [E, E]."""
    for _ in range(iterations):
        logits = logits - logits.logsumexp(-1, keepdim=True)
        logits = logits - logits.logsumexp(-2, keepdim=True)
    return logits.exp()
