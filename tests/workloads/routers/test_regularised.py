"""NLLB's masks and the conditional gate."""

from __future__ import annotations

import pytest
import torch

from tests.workloads.routers.zoo import D, N, matrix, route, router, tokens

E = 4


@pytest.mark.parametrize("name", ["eom", "fom"])
def test_no_masking_is_top_k(name):
    built, top = router(name, E, p=0.0), router("topk", E)
    assert torch.equal(matrix(route(built, tokens()), N, E), matrix(route(top, tokens()), N, E))


@pytest.mark.parametrize("name", ["eom", "fom"])
def test_the_mean_of_training_is_evaluation(name):
    built, x = router(name, E, p=0.3), tokens()
    mean = torch.stack([matrix(route(built, x, seed=seed), N, E) for seed in range(800)]).mean(0)
    # Four standard deviations of a masked weight of at most one over 800 draws
    torch.testing.assert_close(mean, matrix(route(built.eval(), x), N, E), rtol=0, atol=0.066)


def test_eom_masks_choices_and_fom_whole_tokens():
    rows = {}
    for name in ("eom", "fom"):
        routing = route(router(name, E, p=0.5), tokens(400))
        rows[name] = set((routing.weight.view(400, 2) == 0).sum(1).tolist())
    assert rows == {"eom": {0, 1, 2}, "fom": {0, 2}}


def forced(gate: float, **options):
    built = router("cmr", E, drop=0.0, **options)
    built.switch.weight.data.zero_()
    built.switch.bias.data.fill_(torch.tensor(gate).logit().clamp(-200, 200).item())
    return built


def test_an_open_gate_is_the_mixture_and_a_closed_one_the_shared_expert():
    x = tokens()
    closed = matrix(route(forced(0.0), x), N, E)
    torch.testing.assert_close(closed, torch.eye(E)[:1].expand(N, E))
    opened = forced(1.0)
    top = router("topk", E - 1)
    top.gate.load_state_dict(opened.gate.state_dict())
    torch.testing.assert_close(matrix(route(opened, x), N, E)[:, 1:], matrix(route(top, x), N, E - 1))
    assert (matrix(route(opened, x), N, E)[:, 0] == 0).all()


def test_the_budget_loss_of_a_half_open_gate():
    routing = route(forced(0.5, budget=0.8, budget_weight=2.0), tokens())
    assert routing.aux_losses["budget"].item() == pytest.approx(2.0 * 0.3, rel=1e-5)


def test_dropped_gates_leave_the_shared_expert_whole():
    built = router("cmr", E, drop=0.5)
    shared = matrix(route(built, tokens(400)), 400, E)[:, 0]
    # Half the tokens, up to four standard deviations
    assert (shared == 1).float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_with_one_expert_both_branches_are_that_expert():
    torch.testing.assert_close(matrix(route(router("cmr", 1), tokens()), N, 1), torch.ones(N, 1))
    assert tokens().shape == (N, D)
