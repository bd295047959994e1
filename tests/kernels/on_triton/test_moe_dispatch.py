"""Dispatch and combine on Triton against the reference, forward and backward."""

import pytest
import torch

from kernels import moe_combine, moe_dispatch
from kernels.testing import DEVICE, assert_close, poisoned_empty

CASES = [
    # N, E, assignments, D, dtype                why this one
    (1, 1, 1, 1, torch.float32),  # one of everything
    (9, 3, "k=2", 5, torch.float32),  # regular
    (150, 5, "k=4", 8, torch.float32),  # several blocks of assignments
    (6, 4, 11, 33, torch.float32),  # irregular: tokens dropped, tokens twice
    (6, 4, 0, 8, torch.float32),  # every token dropped
    (20, 70, "k=3", 300, torch.bfloat16),  # most experts empty, two blocks of features
]


def _assignments(n, e, how):
    gen = torch.Generator().manual_seed(0)
    if isinstance(how, str):
        return torch.randint(0, e, (n, int(how[2:])), generator=gen).to(DEVICE), None
    return (torch.randint(0, high, (how,), generator=gen).to(DEVICE) for high in (e, n))


@pytest.mark.parametrize(("n", "e", "how", "d", "dtype"), CASES)
def test_dispatch_and_combine_match_the_reference_forward_and_backward(n, e, how, d, dtype):
    index, token = _assignments(n, e, how)
    gen = torch.Generator().manual_seed(1)
    x = torch.randn(n, d, generator=gen).to(DEVICE, dtype).requires_grad_()
    weight = torch.rand(index.shape, generator=gen).to(DEVICE).requires_grad_()
    dy = torch.randn(n, d, generator=gen).to(DEVICE, dtype)
    drows = torch.randn(index.numel(), d, generator=gen).to(DEVICE, dtype)
    results = []
    for backend in ("reference", "triton"):
        with poisoned_empty():
            rows, plan = moe_dispatch(x, index, e, token=token, backend=backend)
            leaf = rows.detach().requires_grad_()
            y = moe_combine(leaf, plan, weight, backend=backend)
            plain = moe_combine(leaf, plan, backend=backend)
            outputs = {"rows": rows, "y": y, "plain": plain}
            if index.numel():
                outputs["dx"] = torch.autograd.grad(rows, x, drows)[0]
                outputs["dleaf"], outputs["dweight"] = torch.autograd.grad(y, (leaf, weight), dy)
                outputs["dplain"] = torch.autograd.grad(plain, leaf, dy)[0]
        results.append((outputs, plan))
    (expected, plan), (actual, plan_t) = results
    for field in ("counts", "assignment", "token", "bag_row", "bag_assignment", "bag_start"):
        assert torch.equal(getattr(plan, field), getattr(plan_t, field)), field
    rel = 1e-6 if dtype is torch.float32 else 5e-3  # a rounding of the result, in bfloat16
    for name, want in expected.items():
        assert_close(name, want, actual[name], rel=rel)


def test_strided_rows_and_gradients_are_read_in_place():
    index = torch.tensor([[0, 1], [1, 2], [2, 0]], device=DEVICE)
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(2)).to(DEVICE).t().requires_grad_()
    grads = []
    for backend in ("reference", "triton"):
        rows, plan = moe_dispatch(x, index, 3, backend=backend)
        y = moe_combine(rows, plan, torch.ones(3, 2, device=DEVICE), backend=backend)
        grads.append(torch.autograd.grad(y.sum(), x)[0])
        assert_close("y", 2 * x, y, rel=1e-6)
    assert_close("dx", *grads, rel=1e-6)


def test_float64_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="backend='cpu'"):
        moe_dispatch(torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.int64), 1, backend="triton")
