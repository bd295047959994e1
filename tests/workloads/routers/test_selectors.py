"""DSelect-k's binary codes and COMET's trees and placement."""

from __future__ import annotations

import pytest
import torch

from tests.workloads.routers.zoo import D, N, matrix, route, router, tokens
from workloads.routers.comet import sinkhorn
from workloads.routers.dselect import codes, smooth_step


def test_the_smooth_step_is_flat_at_both_ends_and_half_in_the_middle():
    gamma = 2.0
    t = torch.tensor([-5.0, -1.0, 0.0, 1.0, 5.0], dtype=torch.float64, requires_grad=True)
    s = smooth_step(t, gamma)
    assert s.tolist() == [0, 0, 0.5, 1, 1]
    (slope,) = torch.autograd.grad(s.sum(), t)
    assert slope.tolist() == pytest.approx([0, 0, 1.5 / gamma, 0, 0])


@pytest.mark.parametrize("num_experts", [2, 4, 8])
def test_selectors_are_distributions_over_the_codes(num_experts):
    r = router("dselect_k", num_experts).selectors(tokens())
    torch.testing.assert_close(r.sum(-1), torch.ones(N, 2))


@pytest.mark.parametrize("num_experts", [2, 4, 8, 5])
def test_saturated_bits_select_exactly_the_experts_that_they_spell(num_experts):
    """All codes in turn: the chosen set is the set of integers that the bits of the selectors write."""
    built = router("dselect_k", num_experts, static=True, k=2)
    code = codes(num_experts)
    for first in range(num_experts):
        second = (first + 1) % num_experts
        # Twice the saturation point: +γ for a set bit, −γ for a clear one
        built.bits.data = torch.where(code[[first, second]], 1.0, -1.0) * built.options.gamma
        routing = route(built, tokens(1))
        assert set(routing.expert.tolist()) == {first, second}
        assert routing.stats["binary_frac"] == 1
        torch.testing.assert_close(routing.weight.sum(), torch.ones(()))


def test_saturated_tokens_use_at_most_k_experts():
    built = router("dselect_k", 8, k=3, gamma=1e-4)
    per_token = torch.bincount(route(built, tokens()).token, minlength=N)
    assert per_token.max() <= 3


def test_it_starts_dense():
    torch.manual_seed(0)
    from workloads import build_router

    built = build_router("dselect_k", D, 8)
    assert len(route(built, tokens()).token) == 8 * N


def test_mass_on_missing_experts_is_penalised():
    built = router("dselect_k", 5, static=True, k=1)
    penalty = {}
    for name, code in (("existing", 4), ("missing", 7)):
        built.bits.data = torch.where(codes(5)[[code]], 0.4, -0.4)
        penalty[name] = route(built, tokens(1)).aux_losses["codes"].item()
    assert penalty["missing"] > 10 * penalty["existing"] > 10


@pytest.mark.parametrize("num_experts", [2, 5, 8])
def test_path_probabilities_of_a_tree_sum_to_one(num_experts):
    v = router("comet", num_experts).paths(tokens())
    torch.testing.assert_close(v.sum(-1), torch.ones(N, 2))


def test_hard_trees_leave_at_most_one_expert_each():
    built = router("comet", 8, k=3, gamma=1e-5, search=0.0)
    routing = route(built, tokens())
    assert torch.bincount(routing.token, minlength=N).max() <= 3
    torch.testing.assert_close(matrix(routing, N, 8).sum(1), torch.ones(N))


def test_gates_sum_to_one_before_and_after_the_search():
    built = router("comet", 5)
    for progress in (0, 5, 50):
        built.set_progress(progress, 100)
        torch.testing.assert_close(matrix(route(built, tokens()), N, 5).sum(1), torch.ones(N), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("step", [0, 4, 9])
def test_the_placement_is_doubly_stochastic_during_the_search(step):
    built = router("comet", 6)
    built.set_progress(step, 100)
    r = built.permutation()
    torch.testing.assert_close(r.sum(0), torch.ones(6), rtol=0, atol=1e-3)
    # The last normalisation is of the columns; rows have converged to 1e-3 except near ties
    torch.testing.assert_close(r.sum(1), torch.ones(6), rtol=0, atol=2e-2)


def test_rounding_the_placement_at_the_end_changes_next_to_nothing():
    built = router("comet", 6)
    built.set_progress(9999, 100_000)
    soft = matrix(route(built, tokens()), N, 6)
    built.set_progress(10_000, 100_000)
    assert built.frozen
    # Scores that were never trained hold near ties, which leave single entries of R unfinished
    assert (matrix(route(built, tokens()), N, 6) - soft).abs().mean() < 1e-3


def test_the_placement_moves_gates_to_other_experts_and_nothing_else():
    built = router("comet", 6, search=0.0)
    searched = router("comet", 6)
    searched.load_state_dict(built.state_dict() | {"scores": searched.scores, "frozen": torch.tensor(True)})
    searched.placement.copy_(torch.tensor([2, 0, 1, 5, 3, 4]))
    before, after = matrix(route(built, tokens()), N, 6), matrix(route(searched, tokens()), N, 6)
    torch.testing.assert_close(after[:, searched.placement], before)


def test_sinkhorn_of_a_sharp_matrix_is_its_permutation():
    order = torch.tensor([3, 1, 0, 2])
    assert torch.equal(sinkhorn(100 * torch.eye(4)[order], 20).round(), torch.eye(4)[order])
