"""Routing: what the formula promises, on the PyTorch form and the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import moe_route
from kernels.testing import assert_close

FORMS = ("reference", "cpu")
SIZES = st.integers(0, 9), st.integers(1, 9), st.integers(0, 2**31 - 1)


def _logits(n, e, seed, dtype=torch.float32):
    # a coarse grid, so that ties are common
    return (torch.randn(n, e, generator=torch.Generator().manual_seed(seed)) * 2).round().to(dtype) / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize(
    ("n", "e", "k"), [(1, 1, 1), (6, 4, 4), (17, 5, 2), (4, 40, 20)], ids=["one", "k=E", "odd", "many chosen"]
)
def test_the_pytorch_form_matches_the_reference_forward_and_backward(n, e, k, renormalize, dtype):
    logits = _logits(n, e, 0, dtype).requires_grad_()
    noise = _logits(n, e, 1).requires_grad_()
    bias = _logits(1, e, 2)[0] / 10
    dweight = torch.randn(n, k, generator=torch.Generator().manual_seed(3))
    results = []
    for backend in FORMS:
        index, weight, counts = moe_route(logits, k, bias=bias, noise=noise, renormalize=renormalize, backend=backend)
        grads = torch.autograd.grad(weight, (logits, noise), dweight.to(weight.dtype))
        results.append((index, counts, weight, *grads))
    (index, counts, *expected), (index_cpu, counts_cpu, *actual) = results
    assert torch.equal(index, index_cpu)
    assert torch.equal(counts, counts_cpu)
    for want, got in zip(expected, actual, strict=True):
        # absolute, for gradients that cancel to zero where k = E = 1
        assert torch.allclose(want, got, rtol=1e-2 if want.dtype == torch.bfloat16 else 1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", FORMS)
@settings(max_examples=30, deadline=None)
@given(*SIZES)
def test_every_token_gets_k_different_experts_that_no_other_beats(backend, n, e, seed):
    logits = _logits(n, e, seed)
    k = 1 + seed % e
    index, weight, counts = moe_route(logits, k, backend=backend)
    assert index.dtype == counts.dtype == torch.int64
    assert weight.dtype == torch.float32
    assert int(counts.sum()) == n * k
    assert torch.equal(counts, torch.bincount(index.flatten(), minlength=e))
    for row, chosen in zip(logits.tolist(), index.tolist(), strict=True):
        assert chosen == sorted(range(e), key=lambda i: (-row[i], i))[:k]
    assert torch.allclose(weight.sum(-1), torch.ones(n))


@pytest.mark.parametrize("backend", FORMS)
def test_weights_are_probabilities_and_renormalised_weights_their_shares(backend):
    logits = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    index, plain, _ = moe_route(logits, 3, renormalize=False, backend=backend)
    assert_close("weight", logits.softmax(-1).gather(1, index), plain, rel=1e-6)
    _, shares, _ = moe_route(logits, 3, backend=backend)
    assert_close("shares", plain / plain.sum(-1, keepdim=True), shares, rel=1e-6)


@pytest.mark.parametrize("backend", FORMS)
def test_bias_moves_the_choice_but_not_the_weights(backend):
    logits = torch.tensor([[2.0, 1.0, 0.0]], requires_grad=True)
    bias = torch.tensor([0.0, 0.0, 5.0], requires_grad=True)
    index, weight, _ = moe_route(logits, 1, bias=bias, renormalize=False, backend=backend)
    assert index.item() == 2
    assert_close("weight", logits.softmax(-1)[:, 2:], weight, rel=1e-6)
    assert torch.autograd.grad(weight.sum(), bias, allow_unused=True) == (None,)


@pytest.mark.parametrize("backend", FORMS)
def test_an_expert_chosen_by_bias_alone_still_has_finite_weights(backend):
    logits = torch.tensor([[0.0, -300.0, -500.0]])
    _, weight, _ = moe_route(logits, 2, bias=torch.tensor([0.0, 9.0, 9.0]), backend=backend)
    assert weight.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("backend", FORMS)
def test_masked_experts_come_last_and_nan_still_names_different_experts(backend):
    inf, nan = float("inf"), float("nan")
    index, weight, _ = moe_route(torch.tensor([[-inf, 0.0, -inf], [nan, nan, nan]]), 2, backend=backend)
    assert index.tolist() == [[1, 0], [0, 1]]
    assert weight[0].tolist() == [1.0, 0.0]
    assert weight[1].isnan().all()


@pytest.mark.parametrize("renormalize", [True, False])
def test_gradients_match_finite_differences(renormalize):
    gen = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 6, generator=gen, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(5, 6, generator=gen, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda z, eps: moe_route(z, 3, noise=eps, renormalize=renormalize)[1], (logits, noise)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(2, 3, 4)}, r"\[N, E\]"),
        ({"logits": torch.zeros(2, 3, dtype=torch.int64)}, "floating"),
        ({"k": 0}, "between 1 and the 3 experts"),
        ({"k": 4}, "between 1 and the 3 experts"),
        ({"bias": torch.zeros(2)}, "bias"),
        ({"noise": torch.zeros(3)}, "noise"),
        ({"backend": "fast"}, "backend"),
    ],
)
def test_wrong_inputs_are_refused_with_what_was_expected(change, message):
    with pytest.raises(ValueError, match=message):
        moe_route(**({"logits": torch.zeros(2, 3), "k": 2} | change))
