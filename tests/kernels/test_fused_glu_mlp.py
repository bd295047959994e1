"""The gated MLP over groups on the PyTorch form."""

import pytest
import torch

from kernels import fused_glu_mlp
from kernels.fused_glu_mlp import ACTIVATIONS
from kernels.testing import assert_close

NAMES = ("x", "w_gate", "w_up", "w_down")


def _tensors(counts, i, h, o, dtype=torch.float32):
    gen = torch.Generator().manual_seed(0)
    e, m = len(counts), sum(counts)
    shapes = ((m, i), (e, i, h), (e, i, h), (e, h, o))
    inputs = [torch.randn(*s, generator=gen, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]
    return inputs, torch.tensor(counts)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("counts", "i", "h", "o"),
    [([1], 1, 1, 1), ([0, 4, 0, 5], 3, 7, 5), ([0, 9], 8, 16, 4), ([0, 0], 4, 4, 4)],
    ids=["one", "odd", "all to one", "no rows"],
)
def test_the_pytorch_form_matches_the_reference_forward_and_backward(counts, i, h, o, activation):
    inputs, counts = _tensors(counts, i, h, o)
    dy = torch.randn(int(counts.sum()), o, generator=torch.Generator().manual_seed(1))
    results = [fused_glu_mlp(*inputs, counts, activation, backend=b) for b in ("reference", "cpu")]
    assert_close("y", *results, rel=2e-6)
    grads = (torch.autograd.grad(y, inputs, dy) for y in results)
    for name, want, got in zip(NAMES, *grads, strict=True):
        assert_close(f"d{name}", want, got, rel=2e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_match_finite_differences(activation):
    inputs, counts = _tensors([2, 0, 3], 3, 4, 2, torch.float64)
    assert torch.autograd.gradcheck(lambda *t: fused_glu_mlp(*t, counts, activation), inputs)


def test_identity_is_the_bilinear_form_of_degree_two():
    inputs, counts = _tensors([3, 2], 4, 6, 4)
    y = fused_glu_mlp(*inputs, counts, "identity")
    assert_close("y", 9 * y, fused_glu_mlp(3 * inputs[0], *inputs[1:], counts, "identity"), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "swish"}, "silu, gelu, relu, identity, sigmoid"),
        ({"w_down": torch.zeros(2, 4, 3)}, r"w_down \[E, H, O\]"),
        ({"w_up": torch.zeros(2, 3, 5, dtype=torch.float64)}, "one floating dtype"),
        ({"counts": torch.tensor([1, 1])}, "sum to the 4 rows"),
    ],
)
def test_wrong_inputs_are_refused_with_what_was_expected(change, message):
    good = {
        "x": torch.zeros(4, 3),
        "w_gate": torch.zeros(2, 3, 5),
        "w_up": torch.zeros(2, 3, 5),
        "w_down": torch.zeros(2, 5, 3),
        "counts": torch.tensor([1, 3]),
    }
    with pytest.raises(ValueError, match=message):
        fused_glu_mlp(**(good | change))
