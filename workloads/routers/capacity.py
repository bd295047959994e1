"""Token-choice routers with a capacity: GShard (and GLaM) top-2, Switch top-1.

Shapes: N tokens, D width, E experts, k choices a token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import moe_route
from workloads.routers.base import Gate, GateRouter, capacity, sequences, within_capacity
from workloads.routers.losses import balance, z_loss
from workloads.routers.options import capacity as configs
from workloads.routers.options.common import Capacity
from workloads.routers.token_choice import jittered
from workloads.slots import LayerContext, Routing


def with_room(
    index: Tensor,
    wanted: Tensor,
    shape: tuple[int, int],
    chosen: Capacity,
    num_experts: int,
    *,
    training: bool,
    order: Tensor | None = None,
) -> Tensor:
    """Which wanted choices are served while there is room.

    Training serves all first choices before all second ones, as GShard does: an earlier token's second choice may
    give way to a later token's first. Evaluation serves token after token, which never looks ahead.

    Args: index [N, k] int64; wanted [N, k] bool; shape (B, T); order [N], the tokens in order of service, if not
    their own. Returns bool [N, k].
    """
    factor = chosen.capacity_factor if training else chosen.eval_capacity_factor
    if not factor:
        return wanted
    (batch, time), (num_tokens, k) = shape, index.shape
    by_sequence = chosen.group == "sequence"
    size = time if by_sequence else num_tokens
    room = max(capacity(factor, k, size, num_experts), chosen.min_capacity)
    tokens = torch.arange(num_tokens, device=index.device)
    group = tokens // time if by_sequence else torch.zeros_like(tokens)
    order = tokens if order is None else order
    ranks = torch.arange(k, device=index.device)
    served = order.repeat(k) if training else order.repeat_interleave(k)
    rank = ranks.repeat_interleave(num_tokens) if training else ranks.repeat(num_tokens)
    asks = wanted[served, rank]
    # Choices that are not wanted wait in a group of their own, where they take nobody's room.
    own = torch.where(asks, group[served], batch)
    fits = within_capacity(index[served, rank], own, room, num_experts)
    result = torch.zeros_like(wanted)
    result[served, rank] = asks & fits
    return result


def drop_fraction(wanted: Tensor, kept: Tensor) -> Tensor:
    """Share of the wanted choices that found no room."""
    return 1 - kept.sum() / wanted.sum().clamp_min(1)


class GShard(GateRouter):
    """Top-2 with capacity and a random second expert (arXiv:2006.16668, alg. 1)."""

    def __init__(self, d_model: int, num_experts: int, chosen: configs.GShard) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.k = self.active_experts = min(2, num_experts)
        self.gate = Gate(d_model, num_experts)

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns up to 2N assignments."""
        z = self.gate(x)
        probs = z.softmax(-1)
        index = self._choices(z)
        top = probs.gather(1, index)
        share = top / top.sum(-1, keepdim=True).clamp_min(torch.finfo(top.dtype).eps)
        wanted = torch.ones_like(index, dtype=torch.bool)
        if self.training and self.options.policy == "random" and self.k == 2:
            wanted[:, 1] = torch.rand_like(share[:, 1]) < 2 * share[:, 1]
        confident_first = self.training and self.options.prioritized
        order = top[:, 0].detach().argsort(descending=True, stable=True) if confident_first else None
        shape = sequences(context, len(x))
        kept = with_room(index, wanted, shape, self.options, self.num_experts, training=self.training, order=order)
        token, rank = kept.nonzero(as_tuple=True)
        losses = {}
        if self.options.balance_weight:
            losses["balance"] = self.options.balance_weight * balance(probs, index[:, 0], training=self.training)
        if self.options.z_weight:
            losses["z"] = self.options.z_weight * z_loss(z)
        stats = {"drop_frac": drop_fraction(wanted, kept), "second_frac": wanted[:, -1].float().mean()}
        weight = self._weights(top, share, kept)[token, rank]
        return Routing(token, index[token, rank], weight, losses, stats, probs.detach())

    def _choices(self, z: Tensor) -> Tensor:
        index = moe_route(z, self.k)[0]
        if self.training and self.options.policy == "sampling" and self.k == 2:
            # Adding Gumbel noise and taking the largest draws from the softmax of the rest.
            noise = -torch.empty_like(z).exponential_().log()
            index[:, 1:] = (z.detach() + noise).scatter(1, index[:, :1], -torch.inf).argmax(-1, keepdim=True)
        return index

    def _weights(self, top: Tensor, share: Tensor, kept: Tensor) -> Tensor:
        if self.k == 1:
            return top
        if self.options.normalize_before_dropping:
            return share
        survivors = top * kept
        return survivors / survivors.sum(-1, keepdim=True).clamp_min(torch.finfo(top.dtype).eps)


class Switch(GateRouter):
    """Top-1 with capacity, weighted by its probability (arXiv:2101.03961, eq. 1-6; z-loss arXiv:2202.08906)."""

    def __init__(self, d_model: int, num_experts: int, chosen: configs.Switch) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.gate = Gate(d_model, num_experts)

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns up to N assignments."""
        z = self.gate(jittered(x, self.options.jitter if self.training else 0.0))
        probs = z.softmax(-1)
        index, weight, _ = moe_route(z, 1, renormalize=False)
        wanted = torch.ones_like(index, dtype=torch.bool)
        shape = sequences(context, len(x))
        kept = with_room(index, wanted, shape, self.options, self.num_experts, training=self.training)
        token = kept[:, 0].nonzero().squeeze(-1)
        losses = {}
        if self.options.balance_weight:
            losses["balance"] = self.options.balance_weight * balance(probs, index, training=self.training)
        if self.options.z_weight:
            losses["z"] = self.options.z_weight * z_loss(z)
        stats = {"drop_frac": drop_fraction(wanted, kept)}
        return Routing(token, index[token, 0], weight[token, 0], losses, stats, probs.detach())
