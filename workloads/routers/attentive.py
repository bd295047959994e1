"""The attention-weighted gate. Shapes: B sequences of T tokens, D width, W window, R query width, E experts."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from workloads.routers.base import Gate, sequences
from workloads.routers.options.similarity import AttentionWeighted as Options
from workloads.routers.token_choice import TopK, choose
from workloads.slots import LayerContext, Routing


class AttentionWeighted(TopK):
    """Gate votes of recent hidden states, averaged by attention (after AW-MoE, arXiv:2306.05011)."""

    options: Options

    def __init__(self, d_model: int, num_experts: int, chosen: Options) -> None:
        super().__init__(d_model, num_experts, chosen)
        self.query = Gate(d_model, chosen.width, std=d_model**-0.5)
        self.key = Gate(d_model, chosen.width, std=d_model**-0.5)

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N·k assignments."""
        shape = sequences(context, len(x))
        votes = _windows(self.gate(x).view(*shape, -1), self.options.window)
        scores, present = self._scores(x.view(*shape, -1))
        z = _attend(scores, present, votes).flatten(0, 1)
        routing = choose(z, self.k, self.options, training=self.training)
        if self.training and self.options.contrast_weight and len(x) > 1:
            hidden = torch.rand_like(scores) < self.options.mask
            hidden[..., -1] = False
            masked = _attend(scores, present & ~hidden, votes).flatten(0, 1)
            routing.aux_losses["contrast"] = self.options.contrast_weight * self._contrast(z, masked)
        attention = scores.detach().masked_fill(~present, -torch.inf).softmax(-1)
        routing.stats["attention_to_past"] = 1 - attention[..., -1].mean()
        return routing

    def _scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Attention logits [B, T, W], the current position last, and which positions exist."""
        query, keys = self.query(x), _windows(self.key(x), self.options.window)
        scores = torch.einsum("btr,btrw->btw", query, keys) / math.sqrt(self.options.width)
        window = self.options.window
        position = torch.arange(x.shape[1], device=x.device)[:, None] + torch.arange(1 - window, 1, device=x.device)
        return scores, (position >= 0).expand_as(scores)

    def _contrast(self, z: Tensor, masked: Tensor) -> Tensor:
        """InfoNCE between both views of the same token, other tokens as negatives."""
        step = max(1, len(z) // self.options.contrast_tokens)
        one, two = F.normalize(z[::step], dim=-1), F.normalize(masked[::step], dim=-1)
        similarity = one @ two.t() / self.options.contrast_temperature
        return F.cross_entropy(similarity, torch.arange(len(one), device=z.device))


def _windows(x: Tensor, window: int) -> Tensor:
    """The last `window` positions up to each one, zeros before the start. Args: x [B, T, C]. Returns [B, T, C, W]."""
    return F.pad(x, (0, 0, window - 1, 0)).unfold(1, window, 1)


def _attend(scores: Tensor, present: Tensor, votes: Tensor) -> Tensor:
    attention = scores.masked_fill(~present, -torch.inf).softmax(-1)
    return torch.einsum("btw,btew->bte", attention, votes)
