"""The grouped product on the PyTorch form: every layout, any division of rows, gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import grouped_mm
from kernels.testing import assert_close, poisoned_empty

COUNTS = [[1], [5, 0, 4], [0, 0, 9], [9, 0, 0], [0, 0]]
# float32 differs by the order of sums; bfloat16 by a rounding of the result
REL = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 5e-3}


def _tensors(counts, i, o, dtype=torch.float32):
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(sum(counts), i, generator=gen, dtype=torch.float64).to(dtype).requires_grad_()
    w = torch.randn(len(counts), i, o, generator=gen, dtype=torch.float64).to(dtype).requires_grad_()
    return x, w, torch.tensor(counts)


@pytest.mark.parametrize("dtype", REL, ids=str)
@pytest.mark.parametrize(("i", "o"), [(8, 16), (7, 5), (1, 1)], ids=["aligned", "odd", "one"])
@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_grouped_mm_matches_the_reference_forward_and_backward(counts, i, o, dtype):
    x, w, counts = _tensors(counts, i, o, dtype)
    dy = torch.randn(len(x), o, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = grouped_mm(x, w, counts, backend="reference")
    expected_grads = torch.autograd.grad(expected, (x, w), dy)
    with poisoned_empty():
        actual = grouped_mm(x, w, counts, backend="cpu")
        actual_grads = torch.autograd.grad(actual, (x, w), dy)
    assert_close("y", expected, actual, rel=REL[dtype])
    for name, want, got in zip(("dx", "dw"), expected_grads, actual_grads, strict=True):
        assert_close(name, want, got, rel=REL[dtype])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_any_division_of_rows_gives_each_row_its_experts_product(counts, i, o, transposed):
    x, w, counts = _tensors(counts, i, o)
    if transposed:
        w = w.detach().transpose(1, 2).contiguous().transpose(1, 2)
    expert = torch.repeat_interleave(torch.arange(len(counts)), counts)
    expected = torch.einsum("mi,mio->mo", x, w[expert])
    assert torch.allclose(expected, grouped_mm(x, w, counts), rtol=1e-4, atol=1e-5)  # absolute: sums may cancel


@pytest.mark.parametrize("width", [8, 6], ids=["aligned", "odd"])
def test_expanded_gradients_and_strided_rows_are_right(width):
    x, w, counts = _tensors([4, 0, 3], width, width)
    x = x.detach().t().contiguous().t().requires_grad_()
    grads = [torch.autograd.grad(grouped_mm(x, w, counts, backend=b).sum(), (x, w)) for b in ("reference", "cpu")]
    for name, want, got in zip(("dx", "dw"), *grads, strict=True):
        assert_close(name, want, got, rel=1e-6)


def test_gradients_match_finite_differences():
    x, w, counts = _tensors([2, 0, 3], 3, 4, torch.float64)
    assert torch.autograd.gradcheck(lambda x, w: grouped_mm(x, w, counts), (x, w))


def test_autocast_multiplies_in_its_dtype():
    x, w, counts = _tensors([2, 3], 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = grouped_mm(x, w, counts)
    assert y.dtype == torch.bfloat16
    dx, dw = torch.autograd.grad(y.sum(), (x, w))
    assert dx.dtype == dw.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3, 5)}, "with one I"),
        ({"w": torch.zeros(2, 4, 5, dtype=torch.float64)}, "one floating dtype"),
        ({"counts": torch.tensor([1, 1])}, "sum to the 3 rows"),
        ({"counts": torch.tensor([4, -1])}, "smallest -1"),
        ({"counts": torch.tensor([1, 1, 1])}, r"counts must be integer \[2\]"),
        ({"counts": torch.tensor([1.0, 2.0])}, "counts must be integer"),
    ],
)
def test_wrong_inputs_are_refused_with_what_was_expected(change, message):
    good = {"x": torch.zeros(3, 4), "w": torch.zeros(2, 4, 5), "counts": torch.tensor([1, 2])}
    with pytest.raises(ValueError, match=message):
        grouped_mm(**(good | change))
