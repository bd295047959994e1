"""Capacity: who is served, who is dropped, and GShard's and Switch's special cases."""

from __future__ import annotations

import pytest
import torch

from tests.workloads.routers.zoo import BATCH, TIME, D, N, context, matrix, moe, route, router, tokens
from workloads.routers.base import within_capacity

E = 4


def test_room_is_given_in_order_and_a_group():
    generator = torch.Generator().manual_seed(0)
    expert, group = (torch.randint(high, (200,), generator=generator) for high in (E, 3))
    taken: dict[tuple[int, int], int] = {}
    expected = []
    for pair in zip(expert.tolist(), group.tolist(), strict=True):
        expected.append(taken.get(pair, 0) < 7)
        taken[pair] = taken.get(pair, 0) + 1
    assert within_capacity(expert, group, 7, E).tolist() == expected


def test_gshard_without_limits_is_top_two():
    built = router("gshard", E, capacity_factor=0.0, policy="all")
    top = router("topk", E, k=2)
    top.gate.load_state_dict(built.gate.state_dict())
    torch.testing.assert_close(matrix(route(built, tokens()), N, E), matrix(route(top, tokens()), N, E))


def test_second_experts_are_kept_in_proportion_to_their_weight():
    built, x = router("gshard", E, capacity_factor=0.0), tokens(20_000)
    top = built.gate(x).softmax(-1).topk(2).values
    wanted = (2 * top[:, 1] / top.sum(-1)).clamp(max=1).mean().item()
    # Three standard deviations of a share over 2e4 tokens
    assert route(built, x).stats["second_frac"].item() == pytest.approx(wanted, abs=0.012)


def test_a_sampled_second_expert_follows_the_gates_of_the_rest():
    built, x = router("gshard", E, capacity_factor=0.0, policy="sampling"), tokens(1).expand(20_000, D)
    p = built.gate(x[:1]).softmax(-1)[0]
    first = int(p.argmax())
    second = route(built, x).expert.view(-1, 2)[:, 1]
    rest = p.index_fill(0, torch.tensor(first), 0.0)
    torch.testing.assert_close(torch.bincount(second, minlength=E) / 20_000, rest / rest.sum(), rtol=0, atol=0.012)


def test_survivors_share_the_weight_when_normalised_after_dropping():
    built = router("gshard", E, normalize_before_dropping=False, min_capacity=1)
    total = matrix(route(built, tokens(), context()), N, E).sum(1)
    assert ((total == 0) | torch.isclose(total, torch.ones(()))).all()
    before = router("gshard", E, min_capacity=1)
    assert (matrix(route(before, tokens(), context()), N, E).sum(1) < 0.99).any()


def test_confident_tokens_are_served_first_where_asked():
    built, x = router("gshard", E, prioritized=True, policy="all", capacity_factor=0.5, min_capacity=1), tokens()
    built.gate.weight.data[0] += 10 * built.gate.weight.data[0]
    routing = route(built, x)
    p = built.gate(x).softmax(-1)
    firsts = p.argmax(-1) == 0
    kept = torch.zeros(N, dtype=torch.bool).index_fill(0, routing.token[routing.expert == 0], True)
    served, dropped = p.max(-1).values[firsts & kept], p.max(-1).values[firsts & ~kept]
    assert len(dropped) > 0
    assert served.min() >= dropped.max()


def test_glam_is_gshard_with_both_choices_and_double_room():
    glam, same = router("glam", E), router("gshard", E, policy="all", capacity_factor=2.0)
    assert torch.equal(matrix(route(glam, tokens()), N, E), matrix(route(same, tokens()), N, E))


def all_to_one(layer) -> None:
    """Make expert 0 every token's first choice: inputs are positive, its gate is large."""
    layer.router.gate.weight.data.zero_()
    layer.router.gate.weight.data[0] = 5.0


def test_overflow_is_dropped_counted_and_left_to_the_residual():
    layer, where = moe("switch", E, capacity_factor=1.0, min_capacity=1, jitter=0.0), context()
    all_to_one(layer)
    y = layer(tokens().abs().view(BATCH, TIME, D), where)
    room = TIME // E
    assert (y[:, :room].abs().sum(-1) > 0).all()
    assert (y[:, room:] == 0).all()
    assert where.stats["0/drop_frac"].item() == pytest.approx(1 - room / TIME)
    assert where.stats["0/util_max"].item() == pytest.approx(E)


def test_a_whole_batch_may_share_the_room():
    layer, where = moe("switch", E, capacity_factor=1.0, group="batch", jitter=0.0), context()
    all_to_one(layer)
    y = layer(tokens().abs().view(BATCH, TIME, D), where).view(N, D)
    assert (y[: N // E].abs().sum(-1) > 0).all()
    assert (y[N // E :] == 0).all()


def test_no_limit_drops_nothing():
    layer, where = moe("switch", E, capacity_factor=0.0, jitter=0.0), context()
    all_to_one(layer)
    y = layer(tokens().abs().view(BATCH, TIME, D), where)
    assert (y.abs().sum(-1) > 0).all()
    assert where.stats["0/drop_frac"].item() == 0


def test_jitter_is_for_training_alone():
    built, x = router("switch", E, jitter=0.1), tokens()
    assert not torch.equal(route(built, x, seed=1).weight, route(built, x, seed=2).weight)
    built.eval()
    assert torch.equal(route(built, x, seed=1).weight, route(built, x, seed=2).weight)
