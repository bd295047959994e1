"""Routers that decide how much computation a token gets: skip the layer, run some learners, switch modules.

Shapes: N tokens, D width, E experts, B sequences of T tokens.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.routers.base import INIT_STD, Gate, GateRouter, every_expert, largest, nonzero, sequences
from workloads.routers.options import depth as configs
from workloads.routers.token_choice import TopK, choose
from workloads.slots import LayerContext, Routing


class MixtureOfDepths(TopK):
    """The best tokens of each sequence pass, weighted by their score (arXiv:2404.02258, eq. 1)."""

    options: configs.MixtureOfDepths

    def __init__(self, d_model: int, num_experts: int, chosen: configs.MixtureOfDepths) -> None:
        super().__init__(d_model, num_experts, chosen)
        self.score = nn.Parameter(torch.randn(d_model) * INIT_STD)
        # w·x has no bias of its own, and no linear score of centred inputs is positive for an eighth of them
        self.score_bias = nn.Parameter(torch.zeros(())) if chosen.predictor == "aux" else None
        hidden = max(8, d_model // 4)
        self.predictor = (
            nn.Sequential(nn.Linear(d_model, hidden), nn.SiLU(), nn.Linear(hidden, 1))
            if chosen.predictor == "mlp"
            else None
        )

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns k assignments a served token."""
        r = x @ self.score.to(x.dtype)
        guess = self._guess(x, r)
        if not self.training:
            return self._served(x, r, guess > 0, context)
        chosen = self.best(r.detach().view(sequences(context, len(x))))
        routing = self._served(x, r, chosen, context)
        if self.options.predictor_weight:
            loss = F.binary_cross_entropy_with_logits(guess, chosen.to(guess.dtype))
            routing.aux_losses["predictor"] = self.options.predictor_weight * loss
        routing.stats["predictor_accuracy"] = ((guess.detach() > 0) == chosen).float().mean()
        return routing

    def _guess(self, x: Tensor, r: Tensor) -> Tensor:
        if self.predictor is not None:
            guess: Tensor = self.predictor(x.detach()).squeeze(-1)
            return guess
        return r if self.score_bias is None else r + self.score_bias

    def best(self, r: Tensor) -> Tensor:
        """Which tokens are among the C best of their sequence. Args: r [B, T]. Returns bool [B·T]."""
        count = math.ceil(self.options.capacity * r.shape[1])
        return torch.zeros_like(r, dtype=torch.bool).scatter_(1, largest(r, count), True).flatten()

    def _served(self, x: Tensor, r: Tensor, served: Tensor, context: LayerContext) -> Routing:
        token = served.nonzero().squeeze(-1)
        routing = choose(self.logits(x[token], context), self.k, self.options, training=self.training)
        weight = r if self.options.weight == "raw" else r.sigmoid()
        routing.token = token[routing.token]
        routing.weight = routing.weight * weight[routing.token]
        routing.probs = None
        routing.stats["served_frac"] = served.float().mean()
        return routing


class ACM(GateRouter):
    """How many learners run (arXiv:2312.10193, eq. 1-6)."""

    def __init__(self, d_model: int, num_experts: int, chosen: configs.ACM) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.active_experts = num_experts
        self.gate = nn.Sequential(
            nn.Linear(d_model, chosen.gate_hidden), nn.GELU(), nn.Linear(chosen.gate_hidden, num_experts + 1)
        )
        start = torch.tensor(math.log(chosen.temperature))
        self.log_temperature = nn.Parameter(start, requires_grad=chosen.learn_temperature)

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N·E assignments in training (weights 0 or 1), n(t) a token in evaluation."""
        z = self.gate(x)
        if not self.training:
            number = F.one_hot(z.argmax(-1), self.num_experts + 1).to(z.dtype)
            return nonzero(self.prefix(number), stats={"compute": self._cost(number).mean()})
        soft = ((z - torch.empty_like(z).exponential_().log()) / self.log_temperature.exp()).softmax(-1)
        hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(z.dtype)
        number = hard + soft - soft.detach()
        stats = {"compute": self._cost(hard).mean()}
        return every_expert(self.prefix(number), aux_losses=self._losses(z, number, context), stats=stats)

    @staticmethod
    def prefix(number: Tensor) -> Tensor:
        """Weights [N, E] of the learners: 1 for the first n. Args: number [N, E + 1], one-hot of n."""
        return number[:, 1:].flip(-1).cumsum(-1).flip(-1)

    def _cost(self, number: Tensor) -> Tensor:
        steps = torch.arange(self.num_experts + 1, device=number.device, dtype=number.dtype)
        return (number * steps).sum(-1) / self.num_experts

    def _losses(self, z: Tensor, number: Tensor, context: LayerContext) -> dict[str, Tensor]:
        chosen, p = self.options, z.softmax(-1)
        mean = p.mean(0)
        entropy = math.log(len(mean)) - torch.special.entr(mean).sum()
        per_sequence = self._cost(p).view(sequences(context, len(z))).mean(-1)
        spread = (per_sequence[:, None] - per_sequence).abs().mean()
        return {
            "budget": chosen.budget_weight * (self._cost(number).mean() - chosen.target).abs(),
            "entropy": chosen.entropy_weight * entropy,
            "diversity": chosen.diversity_weight * (1 - spread),
        }


class SMA(GateRouter):
    """A two-way latent switch for each expert (arXiv:2306.11197, eq. 4-7)."""

    def __init__(self, d_model: int, num_experts: int, chosen: configs.SMA) -> None:
        super().__init__(d_model, num_experts)
        self.options = chosen
        self.active_experts = max(1.0, num_experts / 2)
        self.gate = Gate(d_model, 2 * num_experts)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(chosen.init_scale * math.sqrt(d_model))))

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns one assignment an active switch."""
        u = self.gate(x).view(len(x), self.num_experts, 2)
        p = (u / self.log_temperature.exp()).softmax(-1)
        active = u.detach()[..., 1] > u.detach()[..., 0]
        token, expert = active.nonzero(as_tuple=True)
        weight = p[..., 1]
        stats = {"active_frac": active.float().mean(), "temperature": self.log_temperature.detach().exp()}
        return Routing(token, expert, weight[token, expert], stats=stats, probs=weight.detach())
