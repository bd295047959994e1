"""SparseMixer's gradient against the exact one, by enumeration of every sample and coin."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.workloads.routers.zoo import N, route, router, tokens
from workloads.routers.sparsemixer import CHANCE_OF_ONE, masked_softmax, multiplier

E = 4
EVERYTHING = 1e6  # a mask so wide that no logit falls out of it

Loss = Callable[[Tensor], Tensor]


def quadratic(h: Tensor) -> Tensor:
    return 0.7 * h - 1.3 * h**2 + 0.2


def cubic(h: Tensor) -> Tensor:
    return quadratic(h) + 0.9 * h**3


def problem(seed: int) -> tuple[Tensor, Tensor]:
    """Logits [E] and the experts' (scalar) outputs [E]."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(E, generator=generator, dtype=torch.float64)
    return z, 2 * torch.randn(E, generator=generator, dtype=torch.float64)


def softmax_of(z: Tensor, variant: str) -> Tensor:
    return masked_softmax((z / (2 if variant == "v2_full" else 1))[None], EVERYTHING, variant)[0]


def exact_gradient(z: Tensor, outputs: Tensor, loss: Loss, variant: str) -> Tensor:
    """Of the expected loss Σ p ℓ(p F); of its choice part alone for v2."""
    z = z.clone().requires_grad_()
    p = softmax_of(z, variant)
    weight = p.detach() if variant == "v2" else p
    return torch.autograd.grad((p * loss(weight * outputs)).sum(), z)[0]


def samples(z: Tensor, outputs: Tensor, loss: Loss, variant: str, *, argmax_rule: bool) -> tuple[Tensor, Tensor]:
    """Probability and gradient of every (expert drawn, coin): [2E], [2E, E]."""
    chances, gradients = [], []
    for drawn in range(E):
        for coin in (True, False):
            leaf = z.clone().requires_grad_()
            p = softmax_of(leaf, variant)
            is_one = coin or (argmax_rule and drawn == int(p.argmax()))
            weight = multiplier(p[drawn], torch.tensor(is_one), variant)
            gradients.append(torch.autograd.grad(loss(weight * outputs[drawn]), leaf)[0])
            heads = CHANCE_OF_ONE[variant]
            chances.append(p[drawn].item() * (heads if coin else 1 - heads))
    return torch.tensor(chances, dtype=torch.float64), torch.stack(gradients)


def straight_through(z: Tensor, outputs: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """The same for a sampled Switch: the weight's gradient alone."""
    chances, gradients = [], []
    for drawn in range(E):
        leaf = z.clone().requires_grad_()
        p = leaf.softmax(-1)
        gradients.append(torch.autograd.grad(loss(p[drawn] * outputs[drawn]), leaf)[0])
        chances.append(p[drawn].item())
    return torch.tensor(chances, dtype=torch.float64), torch.stack(gradients)


def bias_and_variance(chance: Tensor, gradients: Tensor, exact: Tensor) -> tuple[float, float]:
    mean = (chance[:, None] * gradients).sum(0)
    spread = (chance[:, None] * (gradients - mean).square()).sum()
    return (mean - exact).norm().item(), spread.item()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("variant", "loss"), [("v1", quadratic), ("v2", cubic), ("v2_full", cubic)])
def test_without_the_argmax_rule_the_expected_gradient_is_the_exact_one(variant, loss, seed):
    z, outputs = problem(seed)
    chance, gradients = samples(z, outputs, loss, variant, argmax_rule=False)
    expected = (chance[:, None] * gradients).sum(0)
    torch.testing.assert_close(expected, exact_gradient(z, outputs, loss, variant), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("variant", ["v1", "v2", "v2_full"])
def test_the_argmax_rule_makes_the_gradient_biased_as_designed(variant):
    z, outputs = problem(0)
    chance, gradients = samples(z, outputs, cubic, variant, argmax_rule=True)
    assert bias_and_variance(chance, gradients, exact_gradient(z, outputs, cubic, variant))[0] > 1e-3


@pytest.mark.parametrize("loss", [quadratic, cubic])
def test_the_bias_is_smaller_than_straight_through_s_on_the_toy_problem(loss, record_property):
    """Mean over 100 problems of |bias| and total variance; v1's mid-point rule is made for quadratic losses."""
    figures = {"v1": [], "v2_full": [], "straight_through": []}
    for seed in range(100):
        z, outputs = problem(seed)
        for variant in ("v1", "v2_full"):
            exact = exact_gradient(z, outputs, loss, variant)
            figures[variant].append(bias_and_variance(*samples(z, outputs, loss, variant, argmax_rule=True), exact))
        exact = exact_gradient(z, outputs, loss, "v1")
        figures["straight_through"].append(bias_and_variance(*straight_through(z, outputs, loss), exact))
    means = {name: torch.tensor(rows).mean(0).tolist() for name, rows in figures.items()}
    for name, (bias, variance) in means.items():
        record_property(name, f"bias {bias:.3f}, variance {variance:.3f}")
        print(f"{loss.__name__}: {name}: bias {bias:.3f}, variance {variance:.3f}")
    assert means["v2_full"][0] < 0.6 * means["straight_through"][0]
    if loss is quadratic:
        assert means["v1"][0] < means["straight_through"][0]


def test_a_mask_of_width_zero_leaves_the_argmax_and_an_endless_one_leaves_all():
    z = torch.randn(6, E)
    for variant in ("v1", "v2"):
        assert torch.equal(masked_softmax(z, 0.0, variant), torch.nn.functional.one_hot(z.argmax(-1), E).float())
        torch.testing.assert_close(masked_softmax(z, EVERYTHING, variant), z.softmax(-1))


def test_training_weights_are_the_probability_or_its_half_and_evaluation_takes_the_argmax():
    built, x = router("sparsemixer", E, r=10.0), tokens()
    p = built.gate(x).softmax(-1)
    routing = route(built, x)
    ratio = routing.weight / p[routing.token, routing.expert]
    assert torch.isclose(ratio, torch.tensor(1.0)).sum() + torch.isclose(ratio, torch.tensor(0.5)).sum() == N
    assert (ratio < 0.75).any()
    evaluated = route(built.eval(), x)
    assert torch.equal(evaluated.expert, p.argmax(-1))
    torch.testing.assert_close(evaluated.weight, p.max(-1).values)


def test_draws_of_one_token_are_different_experts():
    routing = route(router("sparsemixer", E, k=3, variant="v2", r=10.0), tokens())
    assert all(len(set(row)) == 3 for row in routing.expert.view(N, 3).tolist())
