"""Routing on Triton against the reference, forward and backward."""

import pytest
import torch

from kernels import moe_route
from kernels.testing import DEVICE, assert_close, poisoned_empty

# float32 reductions of a few hundred terms in another order; weights are float32 whatever the logits
REL = 2e-6

CASES = [
    # N, E, k, bias, noise, dtype                   why this one
    (1, 1, 1, None, False, torch.float32),  # nothing to choose
    (5, 4, 4, None, False, torch.float32),  # k = E
    (300, 8, 2, None, False, torch.float32),  # two blocks of tokens, one of them part full
    (7, 5, 2, "E", True, torch.float32),  # odd number of experts, everything given
    (7, 5, 3, "NE", False, torch.bfloat16),  # ties, as bfloat16 makes them
    (3, 65, 8, None, True, torch.float16),  # one expert beyond a power of two
]


def _inputs(n, e, bias, noise, dtype):
    gen = torch.Generator().manual_seed(0)
    logits = torch.randn(n, e, generator=gen).to(DEVICE, dtype).requires_grad_()
    bias_tensor = {None: None, "E": torch.randn(e, generator=gen), "NE": torch.randn(n, e, generator=gen)}[bias]
    bias_tensor = None if bias_tensor is None else bias_tensor.to(DEVICE)
    noise_tensor = torch.randn(n, e, generator=gen).to(DEVICE).requires_grad_() if noise else None
    return logits, bias_tensor, noise_tensor


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize(("n", "e", "k", "bias", "noise", "dtype"), CASES)
def test_route_matches_the_reference_forward_and_backward(n, e, k, bias, noise, dtype, renormalize):
    logits, bias, noise = _inputs(n, e, bias, noise, dtype)
    options = {"bias": bias, "noise": noise, "renormalize": renormalize}
    index, weight, counts = moe_route(logits, k, **options, backend="reference")
    with poisoned_empty():
        index_t, weight_t, counts_t = moe_route(logits, k, **options, backend="triton")
    assert torch.equal(index_t, index)
    assert torch.equal(counts_t, counts)
    assert index_t.dtype == counts_t.dtype == torch.int64
    assert_close("weight", weight, weight_t, rel=REL)
    inputs = {"logits": logits} | ({} if noise is None else {"noise": noise})
    dweight = torch.randn_like(weight)
    expected = torch.autograd.grad(weight, inputs.values(), dweight)
    with poisoned_empty():
        actual = torch.autograd.grad(weight_t, inputs.values(), dweight)
    for name, want, got in zip(inputs, expected, actual, strict=True):
        # renormalised gradients cancel to rounding noise where one weight is all of it (E = 1)
        rel = REL if want.dtype == torch.float32 else 1e-2
        assert torch.allclose(want, got, rtol=rel, atol=1e-6), name


def test_ties_go_to_the_lowest_expert_and_masked_experts_come_last():
    inf = float("inf")
    logits = torch.tensor([[1.0, 1.0, 1.0, 1.0], [-inf, 0.0, -inf, -inf], [0.0, 2.0, 2.0, 3.0]], device=DEVICE)
    for backend in ("reference", "triton"):
        index, weight, _ = moe_route(logits, 2, backend=backend)
        assert index.tolist() == [[0, 1], [1, 0], [3, 1]]
        assert weight[1].tolist() == [1.0, 0.0]


def test_nan_logits_still_name_different_experts():
    logits = torch.full((2, 5), float("nan"), device=DEVICE)
    for backend in ("reference", "triton"):
        index, weight, counts = moe_route(logits, 3, backend=backend)
        assert index.tolist() == [[0, 1, 2]] * 2
        assert weight.isnan().all()
        assert counts.tolist() == [2, 2, 2, 0, 0]


def test_strided_logits_are_read_in_place():
    logits = torch.randn(12, 9, generator=torch.Generator().manual_seed(1)).to(DEVICE).t()
    expected, actual = (moe_route(logits, 2, backend=backend) for backend in ("reference", "triton"))
    assert torch.equal(expected[0], actual[0])
    assert_close("weight", expected[1], actual[1], rel=REL)


def test_no_tokens_are_routed_to_no_expert():
    index, weight, counts = moe_route(torch.zeros(0, 3, device=DEVICE), 2, backend="triton")
    assert index.shape == weight.shape == (0, 2)
    assert counts.tolist() == [0, 0, 0]
