"""Activations: values, slopes, special cases, and each inside a dense and a mixture layer."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from workloads import build_feedforward, list_activations, method
from workloads.activations.options import ACTIVATIONS
from workloads.slots import LayerContext

D, H = 8, 16
GRID = torch.linspace(-4, 4, 33, dtype=torch.float64)

# By design their backward pass is not the derivative of their forward pass
ESTIMATED = {"helu", "jumprelu"}


def activation(name: str, hidden: int = H, **options):
    chosen = ACTIVATIONS[name].options(name=name, **options)
    return ACTIVATIONS[name].load()(D, hidden, chosen).double()


def curve(name: str, **options) -> torch.Tensor:
    """φ on the grid, as one channel (its input is not read)."""
    column = GRID[:, None].expand(-1, H)
    return activation(name, **options)(column, torch.zeros(len(GRID), D, dtype=torch.float64))[:, 0]


VALUES = {
    "relu": GRID.relu(),
    "silu": F.silu(GRID),
    "gelu": F.gelu(GRID),
    "glu": GRID.sigmoid(),
    "bilinear": GRID,
    "reglu": GRID.relu(),
    "geglu": F.gelu(GRID),
    "swiglu": F.silu(GRID),
    "swish_beta": F.silu(GRID),
    "prelu": F.prelu(GRID, torch.tensor(0.25, dtype=torch.float64)),
    "helu": GRID.relu(),
    "jumprelu": GRID * (GRID > 1e-3),
    "rezero": F.silu(GRID),
    "gated_residual": F.silu(GRID),
    "gated_perceptron": F.gelu(GRID),
}


@pytest.mark.parametrize("name", sorted(VALUES))
def test_values_are_those_of_the_formula(name):
    torch.testing.assert_close(curve(name), VALUES[name], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", list_activations())
@pytest.mark.parametrize("layer", ["dense", "moe"])
def test_every_activation_learns_in_both_layers_in_both_precisions(name, layer):
    torch.manual_seed(0)
    width = {"hidden": 24} if layer == "dense" else {"expert_hidden": 24, "num_experts": 3}
    options = {"l0_weight": 0.1} if name == "jumprelu" else {}
    built = build_feedforward(layer, D, activation={"name": name, **options}, **width)
    for precision in (torch.float32, torch.bfloat16):
        where, x = LayerContext(), torch.randn(2, 5, D)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
            y = built(x, where)
        assert y.shape == x.shape
        built.zero_grad()
        (y.float().square().sum() + y.float().sum() + sum(where.losses.values())).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in built.parameters())


@pytest.mark.parametrize("name", sorted(set(list_activations()) - ESTIMATED))
def test_smooth_activations_pass_the_numerical_gradient_check(name):
    built = activation(name)
    generator = torch.Generator().manual_seed(0)
    pre = torch.randn(3, H, generator=generator, dtype=torch.float64).requires_grad_()
    x = torch.randn(3, D, generator=generator, dtype=torch.float64).requires_grad_()
    for parameter in built.parameters():
        parameter.data += 0.1
    assert torch.autograd.gradcheck(lambda pre, x: built(pre, x) + 0 * x.sum(), (pre, x))
    y = torch.randn(3, D, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda y, x: built.finish(y, x) + 0 * x.sum(), (y, x))


def test_the_tanh_form_of_gelu_is_at_most_half_a_thousandth_away():
    gap = (curve("gelu") - curve("gelu", approximate="tanh")).abs().max()
    assert 0 < gap < 4.8e-4


def test_swish_goes_from_half_the_input_to_relu():
    torch.testing.assert_close(curve("swish_beta", beta=0.0), GRID / 2)
    torch.testing.assert_close(curve("swish_beta", beta=1e4), GRID.relu())


PLAIN_GATES = {
    "xatlu": torch.arctan(GRID) / math.pi + 0.5,
    "xgelu": 0.5 * (1 + torch.erf(GRID / math.sqrt(2))),
    "xsilu": GRID.sigmoid(),
}


@pytest.mark.parametrize("name", sorted(PLAIN_GATES))
def test_expanded_gates_are_plain_at_zero_and_reach_beyond_by_alpha(name):
    gate = PLAIN_GATES[name]
    torch.testing.assert_close(curve(name, order="first_order"), gate)
    torch.testing.assert_close(curve(name, order="plain"), GRID * gate)
    torch.testing.assert_close(curve(name, order="second_order"), GRID * gate)
    torch.testing.assert_close(curve(name, alpha=0.3), gate * 1.6 - 0.3)


def test_the_slope_in_alpha_of_xsilu():
    built = activation("xsilu", order="plain")
    (slope,) = torch.autograd.grad(built(GRID[:, None], GRID[:, None]).sum(), built.alpha)
    torch.testing.assert_close(slope, ((2 * GRID.sigmoid() - 1) * GRID).sum())


def test_a_slope_of_minus_one_is_the_absolute_value():
    torch.testing.assert_close(curve("prelu", slope=-1.0), GRID.abs())


def test_helu_differs_from_its_derivative_exactly_on_its_band():
    x = GRID.clone().requires_grad_()
    built = activation("helu", alpha=0.6)
    (slope,) = torch.autograd.grad(built(x, x).sum(), x)
    assert torch.equal(slope, (GRID > -0.6).double())


def test_jumprelu_s_threshold_learns_through_its_kernel():
    built = activation("jumprelu", hidden=1, threshold=0.5, bandwidth=0.2)
    a = torch.tensor([[0.3], [0.45], [0.55], [0.9]], dtype=torch.float64)
    upstream = torch.tensor([[1.0], [2.0], [4.0], [8.0]], dtype=torch.float64)
    (slope,) = torch.autograd.grad((built(a, a) * upstream).sum(), built.log_theta)
    # −θ/ε for the two rows inside the kernel, times dθ/d ln θ = θ
    assert slope.item() == pytest.approx(-(0.5 / 0.2) * (2 + 4) * 0.5)


def test_the_count_of_open_units_and_its_slope():
    built = activation("jumprelu", hidden=1, threshold=0.5, bandwidth=0.2, l0_weight=3.0)
    a = torch.tensor([[0.3], [0.45], [0.55], [0.9]], dtype=torch.float64)
    loss = built.losses(a)["l0"]
    assert loss.item() == pytest.approx(3.0 * 2 / 4)
    (slope,) = torch.autograd.grad(loss, built.log_theta)
    assert slope.item() == pytest.approx(-3.0 * 2 / 4 / 0.2 * 0.5)


def test_smelu_is_smooth_at_its_breaks():
    x = torch.tensor([-1.0, 1.0], dtype=torch.float64, requires_grad=True)
    y = activation("smelu")(x, x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert y.tolist() == [0, 1]
    assert slope.tolist() == [0, 1]


@pytest.mark.parametrize(("start", "function", "error"), [("gelu", F.gelu, 2.4e-3), ("silu", F.silu, 2e-5)])
def test_rational_starts_fit_their_functions(start, function, error):
    inside = GRID.abs() <= 3
    assert (curve("group_rational", start=start) - function(GRID))[inside].abs().max() < error


def test_rational_identity_and_groups():
    torch.testing.assert_close(curve("group_rational", start="identity"), GRID)
    built = activation("group_rational", groups=4)
    built.denominator.data = torch.arange(16.0, dtype=torch.float64)
    y = built(torch.ones(1, H, dtype=torch.float64), torch.zeros(1, D))
    assert y.view(4, 4).std(dim=1).max() < 1e-12
    assert y[0, 0] != y[0, 15]


def test_groups_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match=r"groups \(5\) must divide the hidden width \(16\)"):
        activation("group_rational", groups=5)


def test_rezero_is_the_identity_at_first_and_only_alpha_learns():
    torch.manual_seed(0)
    layer = build_feedforward("dense", D, activation="rezero")
    x = torch.randn(2, 3, D)
    y = layer(x)
    assert (y == 0).all()
    (y * torch.randn_like(y)).sum().backward()
    assert layer.activation.alpha.grad != 0
    assert (layer.up.grad == 0).all()


def test_a_gated_residual_starts_at_its_bias():
    torch.manual_seed(0)
    gated = build_feedforward("dense", D, activation={"name": "gated_residual", "bias": 2.0})
    plain = build_feedforward("dense", D, activation="swiglu")
    plain.load_state_dict({k: v for k, v in gated.state_dict().items() if not k.startswith("activation")})
    x = torch.randn(2, 3, D)
    torch.testing.assert_close(gated(x), torch.sigmoid(torch.tensor(-2.0)) * plain(x))


def test_one_unit_of_a_gated_perceptron_computes_xor():
    built = ACTIVATIONS["gated_perceptron"].options(arity=2, inner="identity")
    unit = ACTIVATIONS["gated_perceptron"].load()(2, 1, built)
    unit.product_weight.data.fill_(-2.0)
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert unit(x.sum(-1, keepdim=True), x).flatten().tolist() == [0, 1, 1, 0]


def test_the_product_of_an_incomplete_group_takes_what_is_there():
    chosen = ACTIVATIONS["gated_perceptron"].options(arity=2, inner="identity")
    unit = ACTIVATIONS["gated_perceptron"].load()(3, 2, chosen)
    unit.product_weight.data.fill_(1.0)
    x = torch.tensor([[2.0, 3.0, 5.0]])
    assert unit(torch.zeros(1, 2), x).tolist() == [[6, 5]]


def test_bilinear_layers_are_homogeneous_of_degree_two():
    torch.manual_seed(0)
    layer, x = build_feedforward("dense", D, activation="bilinear").double(), torch.randn(1, 4, D, dtype=torch.float64)
    torch.testing.assert_close(layer(3 * x), 9 * layer(x))


@pytest.mark.parametrize("name", list_activations())
def test_every_activation_is_documented(name):
    found = method(name)
    assert found.doc
    assert "arXiv" in found.source
