"""Cosine routers of GMoE and XMoE, and the attention-weighted gate, against their formulas and limits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tests.workloads.routers.zoo import BATCH, TIME, D, N, context, matrix, route, router, tokens
from workloads import build_router
from workloads.routers.losses import balance, cv_squared
from workloads.routers.noisy import stay_probability
from workloads.slots import LayerContext

E = 5


def test_gmoe_s_logits_are_cosines_over_the_temperature_whatever_the_length_of_a_token():
    built, x = router("cosine", E, temperature=0.25), tokens()
    built.log_inverse_temperature.data.fill_(-math.log(0.25))
    token = x @ built.project.weight.t() + built.project.bias
    expected = F.cosine_similarity(token[:, None], built.embeddings[None], dim=-1) / 0.25
    torch.testing.assert_close(built.logits(x), expected)
    assert built.logits(x).abs().max() <= 4
    built.project.bias.data.zero_()
    torch.testing.assert_close(built.logits(7 * x), built.logits(x))


def test_gmoe_s_temperature_stops_at_a_hundredth():
    built = router("cosine", E)
    built.log_inverse_temperature.data.fill_(math.log(1e6))
    assert built.logits(tokens()).abs().max() <= 100
    built.embeddings.data.copy_(F.normalize(built.project(tokens(1)), dim=-1).expand_as(built.embeddings))
    torch.testing.assert_close(built.logits(tokens(1)), torch.full((1, E), 100.0))


def test_gmoe_s_loss_is_the_mean_of_importance_and_load():
    built, x = router("cosine", E, k=2, noise=2.0, balance_weight=1.0), tokens()
    routing = route(built, x, context())
    torch.manual_seed(3)
    std = torch.full((N, E), 2.0 / E)
    noisy = built.logits(x) + std * torch.randn(N, E)
    importance = cv_squared(noisy.softmax(-1).sum(0))
    load = cv_squared(stay_probability(built.logits(x), noisy, std, 2).sum(0))
    torch.testing.assert_close(routing.aux_losses["balance"], (importance + load) / 2)
    still = route(router("cosine", E, noise=0.0, balance_weight=1.0), x, context())
    torch.testing.assert_close(
        still.aux_losses["balance"], cv_squared(router("cosine", E).logits(x).softmax(-1).sum(0))
    )


def test_xmoe_normalises_the_experts_alone_and_keeps_them_at_one_length():
    built, x = router("cosine", E, variant="xmoe", noise=1.0, balance_weight=1.0), tokens()
    direction = F.normalize(built.embeddings, dim=-1)
    expected = (x @ built.project.weight.t()) @ direction.t() * built.log_inverse_temperature.exp()
    torch.testing.assert_close(built.logits(x), expected)
    torch.testing.assert_close(built.logits(2 * x), 2 * expected)
    routing = route(built, x, context())
    torch.testing.assert_close(
        routing.aux_losses["balance"], balance(expected.softmax(-1), expected.argmax(-1)), rtol=1e-5, atol=1e-6
    )
    built.after_step()
    torch.testing.assert_close(built.embeddings.norm(dim=-1), torch.full((E,), 1.5))


def test_xmoe_s_embeddings_start_orthogonal():
    torch.manual_seed(0)
    start = build_router("cosine", D, E, variant="xmoe").embeddings
    torch.testing.assert_close(start @ start.t(), 0.32**2 * torch.eye(E), rtol=0, atol=1e-6)


def test_a_window_of_one_is_top_k():
    built, top = router("aw_moe", E, window=1), router("topk", E)
    top.gate.load_state_dict(built.gate.state_dict())
    torch.testing.assert_close(matrix(route(built, tokens(), context()), N, E), matrix(route(top, tokens()), N, E))


def test_one_position_has_nothing_else_to_attend_to():
    built, top = router("aw_moe", E, window=8), router("topk", E)
    top.gate.load_state_dict(built.gate.state_dict())
    alone = LayerContext(shape=(N, 1))
    torch.testing.assert_close(matrix(route(built, tokens(), alone), N, E), matrix(route(top, tokens()), N, E))


def test_the_gate_is_the_attention_s_mean_of_the_window_s_votes():
    built, x = router("aw_moe", E, k=E, window=4, renormalize=False), tokens().view(BATCH, TIME, D)
    z = torch.zeros(BATCH, TIME, E)
    for b in range(BATCH):
        for t in range(TIME):
            past = x[b, max(0, t - 3) : t + 1]
            scores = built.key(past) @ built.query(x[b, t]) / math.sqrt(built.options.width)
            z[b, t] = scores.softmax(0) @ built.gate(past)
    torch.testing.assert_close(matrix(route(built, x.view(N, D), context()), N, E), z.softmax(-1).view(N, E))


def test_views_without_a_mask_are_equal_and_a_mask_sets_them_apart():
    """InfoNCE of a view against itself: the positive pairs have cosine one, and no pair of views could have less."""
    losses = {}
    for mask in (0.0, 1.0):
        built = router("aw_moe", E, mask=mask, contrast_weight=1.0, contrast_tokens=N)
        losses[mask] = route(built, tokens(), context()).aux_losses["contrast"].item()
    z = F.normalize(_gate_logits(router("aw_moe", E), tokens()), dim=-1)
    assert losses[0.0] == pytest.approx(F.cross_entropy(z @ z.t() / 0.1, torch.arange(N)).item(), rel=1e-4)
    assert losses[1.0] > losses[0.0]


def _gate_logits(built, x: torch.Tensor) -> torch.Tensor:
    """z [N, E] without a mask, over a window of 8."""
    scores, present = built._scores(x.view(BATCH, TIME, D))
    votes = F.pad(built.gate(x).view(BATCH, TIME, E), (0, 0, 7, 0)).unfold(1, 8, 1)
    attention = scores.masked_fill(~present, -torch.inf).softmax(-1)
    return torch.einsum("btw,btew->bte", attention, votes).flatten(0, 1)
