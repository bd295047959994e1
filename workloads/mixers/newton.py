"""Parallel evaluation of a non-linear recurrence by Newton's method (DEER, arXiv:2309.12252, sec. 3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import linear_scan

Linearise = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Previous states [B, T, H] -> (next states [B, T, H], Jacobian [B, T, H, H] or its diagonal [B, T, H])."""


def matrix_scan(jacobian: Tensor, x: Tensor, h0: Tensor, *, reverse: bool = False) -> Tensor:
    """h_t = J_t h_{t−1} + x_t for a dense J [B, T, H, H] or a diagonal one [B, T, H]; x [B, T, H], h0 [B, H].

    Dense: blocks of about √T steps side by side, then from block to block, in O(T H³) work and O(√T) operators.
    """
    if jacobian.ndim == 3:
        return linear_scan(jacobian, x, h0, reverse=reverse)
    if reverse:
        return matrix_scan(jacobian.flip(1), x.flip(1), h0).flip(1)
    steps = x.shape[1]
    length = math.isqrt(steps - 1) + 1
    blocks = -(-steps // length)
    tail = blocks * length - steps
    j = F.pad(jacobian, (0, 0, 0, 0, 0, tail)).unflatten(1, (blocks, length))
    b = F.pad(x, (0, 0, 0, tail)).unflatten(1, (blocks, length))
    h, product = b[:, :, 0], j[:, :, 0]
    inside, products = [h], [product]
    for i in range(1, length):
        h = (j[:, :, i] @ h[..., None])[..., 0] + b[:, :, i]
        product = j[:, :, i] @ product
        inside.append(h)
        products.append(product)
    inner, reach = torch.stack(inside, dim=2), torch.stack(products, dim=2)
    carry, outputs = h0, []
    for n in range(blocks):
        whole = inner[:, n] + (reach[:, n] @ carry[:, None, :, None])[..., 0]
        outputs.append(whole)
        carry = whole[:, -1]
    return torch.cat(outputs, dim=1)[:, :steps]


def solve(linearise: Linearise, h0: Tensor, like: Tensor, tolerance: float, max_iterations: int) -> Tensor | None:
    """States [B, T, H] (shape of `like`) with |h_t − f(h_{t−1})| ≤ tolerance everywhere; None where that fails.

    Starts from zeros. Runs without gradient.
    """
    h = torch.zeros_like(like)
    for _ in range(max_iterations):
        past = torch.cat([h0[:, None], h[:, :-1]], dim=1)
        after, jacobian = linearise(past)
        if not after.isfinite().all():
            return None
        if (after - h).abs().max() <= tolerance:
            return after
        pulled = jacobian * past if jacobian.ndim == 3 else (jacobian @ past[..., None])[..., 0]
        h = matrix_scan(jacobian, after - pulled, h0)
    return None


class _AtSolution(torch.autograd.Function):
    """The gradient of the whole recurrence at its solution: λ_t = dh_t + J_{t+1}ᵀ λ_{t+1}, passed to f's inputs."""

    @staticmethod
    def forward(ctx: Any, after: Tensor, h0: Tensor, jacobian: Tensor) -> Tensor:
        ctx.save_for_backward(jacobian)
        return after.clone()

    @staticmethod
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor, Tensor, None]:
        (jacobian,) = ctx.saved_tensors
        turned = jacobian.transpose(-1, -2)
        later = torch.cat([turned[:, 1:], torch.zeros_like(turned[:, :1])], dim=1)
        adjoint = matrix_scan(later, dh, torch.zeros_like(dh[:, 0]), reverse=True)
        return adjoint, (turned[:, 0] @ adjoint[:, 0, :, None])[..., 0], None


def with_gradient(after: Tensor, h0: Tensor, jacobian: Tensor) -> Tensor:
    """The solved states, differentiable.

    Args:
        after: f(h_{t−1}, x_t) at the solution, [B, T, H], h_{t−1} detached: its own inputs receive the adjoint.
        h0: state before the first step, [B, H].
        jacobian: ∂f/∂h at the solution, [B, T, H, H], detached.
    """
    return _AtSolution.apply(after, h0, jacobian)
