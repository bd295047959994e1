"""DeepSeek's routers: shared experts beside routed ones, and balance by a bias instead of a loss.

Shapes: N tokens, D width, E experts, k routed experts a token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import moe_route
from workloads.routers.base import Gate, GateRouter, counts_of, largest, sequences, summed_over_ranks, token_choice
from workloads.routers.losses import balance
from workloads.routers.options import balanced as configs
from workloads.routers.schedule import ScheduledRouter
from workloads.slots import LayerContext, Routing


class DeepSeekMoE(GateRouter):
    """Shared experts for all, unnormalised top-k among the rest (arXiv:2401.06066, eq. 9-17)."""

    def __init__(self, d_model: int, num_experts: int, chosen: configs.DeepSeekMoE) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.shared_experts = min(chosen.shared, num_experts - 1)
        self.routed = num_experts - self.shared_experts
        self.k = min(chosen.k, self.routed)
        self.active_experts = self.k + self.shared_experts
        if self.routed % chosen.devices:
            raise ValueError(
                f"deepseek_moe: devices ({chosen.devices}) must divide the {self.routed} routed experts "
                f"({num_experts} experts less {self.shared_experts} shared)"
            )
        self.gate = Gate(d_model, self.routed)

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N·(k + shared) assignments."""
        z = self.gate(x)
        probs = z.softmax(-1)
        index, weight, _ = moe_route(z, self.k, renormalize=False)
        always = torch.arange(self.shared_experts, device=x.device).expand(len(x), -1)
        losses = self._losses(probs, index)
        return token_choice(
            torch.cat([always, index + self.shared_experts], -1),
            torch.cat([torch.ones_like(always, dtype=weight.dtype), weight], -1),
            aux_losses=losses,
            probs=F.pad(probs.detach(), (self.shared_experts, 0)),
        )

    def _losses(self, probs: Tensor, index: Tensor) -> dict[str, Tensor]:
        losses = {}
        if self.options.expert_balance:
            losses["balance"] = self.options.expert_balance * balance(probs, index, training=self.training) / self.k
        if self.options.device_balance:
            devices = self.options.devices
            per_device = self.routed // devices
            # Balance over groups: probabilities add up inside a group, loads are averaged.
            grouped = balance(probs.view(-1, devices, per_device).sum(-1), index // per_device, training=self.training)
            losses["device_balance"] = self.options.device_balance * grouped / self.k
        return losses


class LossFree(ScheduledRouter):
    """Top-k of score + bias, the bias led by the sign of the load's error (arXiv:2408.15664, alg. 1)."""

    bias: Tensor

    def __init__(self, d_model: int, num_experts: int, chosen: configs.LossFree) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.k = self.active_experts = min(chosen.k, num_experts)
        if num_experts % chosen.groups or chosen.keep_groups > chosen.groups:
            raise ValueError(
                f"loss_free: groups ({chosen.groups}) must divide num_experts ({num_experts}) "
                f"and be at least keep_groups ({chosen.keep_groups})"
            )
        if self.k > num_experts // chosen.groups * chosen.keep_groups:
            raise ValueError(f"loss_free: {chosen.keep_groups} of {chosen.groups} groups hold fewer than k = {self.k}")
        self.gate = Gate(d_model, num_experts)
        self.register_buffer("bias", torch.zeros(num_experts))
        # Not a buffer: it is zero between steps, and DDP would overwrite each worker's own count with the first's.
        self._load: Tensor | None = None

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N·k assignments."""
        z = self.gate(x)
        scores = z.sigmoid() if self.options.score == "sigmoid" else z.softmax(-1)
        index = largest(self._open_groups(scores.detach() + self.bias.to(z.dtype)), self.k)
        weight = scores.gather(1, index)
        if self.options.renormalize and self.k > 1:
            weight = weight / (weight.sum(-1, keepdim=True) + 1e-20)
        if self.training:
            load = counts_of(index, self.num_experts)
            self._load = load if self._load is None else self._load + load
        losses = {}
        if self.options.sequence_weight:
            losses["sequence_balance"] = self.options.sequence_weight * self._inside_sequences(scores, index, context)
        stats = {"bias_spread": self.bias.max() - self.bias.min()}
        return token_choice(index, weight * self.options.scale, aux_losses=losses, stats=stats, probs=scores.detach())

    def after_step(self) -> None:
        """Move the bias against the load of the step; where the load is the mean, it stays."""
        if self._load is None:
            return
        load, self._load = summed_over_ranks(self._load, when=True), None
        if self.progress < 1 - self.options.freeze:
            self.bias += self.options.update_rate * (load.mean() - load).sign()

    def _open_groups(self, biased: Tensor) -> Tensor:
        """Scores [N, E] with those outside of the best groups at -inf (arXiv:2412.19437, sec. 2.1.2)."""
        if self.options.groups == 1:
            return biased
        grouped = biased.unflatten(-1, (self.options.groups, -1))
        strength = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(-1)
        kept = torch.zeros_like(strength, dtype=torch.bool)
        kept.scatter_(1, largest(strength, self.options.keep_groups), True)
        return grouped.masked_fill(~kept[..., None], -torch.inf).flatten(1)

    def _inside_sequences(self, scores: Tensor, index: Tensor, context: LayerContext) -> Tensor:
        """mean over sequences of Σ f_e p̄_e, f_e = E/(k T) count_e (arXiv:2412.19437, eq. 17-20)."""
        shape = (*sequences(context, len(scores)), self.num_experts)
        chosen = torch.zeros_like(scores).scatter_(1, index, 1.0).detach().view(shape)
        share = (scores / scores.sum(-1, keepdim=True)).view(shape)
        fraction = chosen.mean(1) * self.num_experts / self.k
        return (fraction * share.mean(1)).sum(-1).mean()
