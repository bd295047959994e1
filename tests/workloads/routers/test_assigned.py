"""Expert choice is perfectly balanced, BASE is optimal, hash is what its table says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from tests.workloads.routers.zoo import BATCH, TIME, N, context, matrix, route, router, tokens
from workloads.routers.assignment import balanced_assignment
from workloads.routers.hashed import packed_table
from workloads.slots import LayerContext

E = 4


@pytest.mark.parametrize("c", [1.0, 2.0])
@pytest.mark.parametrize("group", ["batch", "sequence"])
def test_expert_choice_gives_every_expert_the_same_number_of_tokens(group, c):
    routing = route(router("expert_choice", E, capacity_factor=c, group=group), tokens(), context())
    assert torch.equal(torch.bincount(routing.expert, minlength=E), torch.full((E,), int(c * N / E)))
    assert len(set(zip(routing.token.tolist(), routing.expert.tolist(), strict=True))) == len(routing.token)


def test_expert_choice_takes_the_best_tokens_of_each_expert():
    built, x = router("expert_choice", E, capacity_factor=1.0), tokens()
    p = built.gate(x).softmax(-1)
    routing = route(built, x)
    for e in range(E):
        assert set(routing.token[routing.expert == e].tolist()) == set(p[:, e].topk(N // E).indices.tolist())


def test_expert_choice_of_all_tokens_is_the_soft_mixture():
    built, x = router("expert_choice", E, capacity_factor=float(E)), tokens()
    torch.testing.assert_close(matrix(route(built, x), N, E), built.gate(x).softmax(-1))


def test_the_learned_threshold_serves_as_many_tokens_in_evaluation_as_in_training():
    built = router("expert_choice", E, capacity_factor=2.0, momentum=0.9)
    for seed in range(60):
        route(built, tokens(256, seed=seed), LayerContext(shape=(1, 256)))
    built.eval()
    routing = route(built, tokens(2048, seed=99), LayerContext(shape=(1, 2048)))
    # Tokens of one distribution: the share over the thresholds is c / E an expert, up to sampling
    share = torch.bincount(routing.expert, minlength=E) / 2048
    torch.testing.assert_close(share, torch.full((E,), 0.5), rtol=0, atol=0.06)


@pytest.mark.parametrize("seed", range(4))
def test_base_is_optimal_by_brute_force(seed):
    scores = np.random.default_rng(seed).normal(size=(6, 3))
    best = max(
        sum(scores[t, e] for t, e in enumerate(choice))
        for choice in itertools.product(range(3), repeat=6)
        if all(choice.count(e) <= 2 for e in range(3))
    )
    found = balanced_assignment(scores, 2)
    assert scores[np.arange(6), found].sum() == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(64, 4), (63, 8), (120, 5), (7, 7)])
@pytest.mark.parametrize("skew", [0.0, 5.0])
def test_base_is_as_good_as_scipys_assignment(rows, columns, skew):
    generator = np.random.default_rng(rows)
    scores = generator.normal(size=(rows, columns)) + skew * np.arange(columns)
    room = -(-rows // columns)
    found = balanced_assignment(scores, room)
    expanded = np.repeat(scores, room, axis=1)
    at, column = linear_sum_assignment(expanded, maximize=True)
    assert scores[np.arange(rows), found].sum() == pytest.approx(expanded[at, column].sum(), rel=1e-10)
    assert np.bincount(found, minlength=columns).max() <= room


def test_equal_scores_are_assigned_too():
    assert np.bincount(balanced_assignment(np.zeros((8, 4)), 2), minlength=4).tolist() == [2, 2, 2, 2]


def test_too_little_room_is_refused():
    with pytest.raises(ValueError, match="capacity must be at least 3"):
        balanced_assignment(np.zeros((9, 3)), 2)


def test_base_balances_exactly_in_training_and_takes_the_best_in_evaluation():
    built, x = router("base", E), tokens()
    scores = x @ built.centroids.t()
    routing = route(built, x)
    assert torch.equal(torch.bincount(routing.expert, minlength=E), torch.full((E,), N // E))
    torch.testing.assert_close(routing.weight, scores.gather(1, routing.expert[:, None])[:, 0].sigmoid())
    assert torch.equal(route(built.eval(), x).expert, scores.argmax(-1))


def test_a_hash_maps_equal_ids_to_equal_experts_wherever_they_stand():
    built, where = router("hash", E), context()
    routing = route(built, tokens(), where)
    by_id: dict[int, set[int]] = {}
    for token_id, expert in zip(where.tokens.flatten().tolist(), routing.expert.tolist(), strict=True):
        by_id.setdefault(token_id, set()).add(expert)
    assert all(len(experts) == 1 for experts in by_id.values())
    assert torch.equal(routing.expert, built.table[where.tokens.flatten()])
    assert torch.equal(route(router("hash", E, train=False, seed=7), tokens(seed=8), context()).expert, routing.expert)


def test_a_bigram_is_the_pair_of_ids():
    built, where = router("hash", E, key="bigram"), context()
    previous = torch.cat([torch.zeros(BATCH, 1, dtype=torch.int64), where.tokens[:, :-1]], dim=1)
    expected = built.table[(previous * 256 + where.tokens).flatten()]
    assert torch.equal(route(built, tokens(), where).expert, expected)


def test_the_bound_is_the_share_of_the_commonest_key_times_e():
    built = router("hash", E)
    where = LayerContext(tokens=torch.tensor([[7] * 9 + [1, 2, 3]] * 3), shape=(BATCH, TIME))
    assert route(built, tokens(), where).stats["hash_bound"].item() == pytest.approx(E * 9 / 12)


def test_a_balanced_table_is_packed_once_from_what_was_counted():
    built = router("hash", E, table="balanced", counting=0.5)
    for step in range(10):
        built.set_progress(step, 10)
        route(built, tokens(), context(seed=step))
    assert built.packed
    counted = torch.stack([context(seed=step).tokens for step in range(5)]).flatten()
    assert torch.equal(built.key_counts, torch.bincount(counted, minlength=256))
    load = torch.zeros(E, dtype=torch.int64).index_add(0, built.table, built.key_counts)
    assert load.max() - load.min() <= built.key_counts.max()


def test_packing_gives_the_heaviest_key_first_and_spreads_unseen_ones():
    table = packed_table([9, 5, 4, 0, 0, 0], 2)
    assert table[:3].tolist() == [0, 1, 1]
    assert sorted(torch.bincount(packed_table([0] * 8, 4)).tolist()) == [2, 2, 2, 2]
