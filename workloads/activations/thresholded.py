"""Piecewise activations whose backward pass or knee is their point: HeLU, JumpReLU, SmeLU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from workloads.activations.base import Activation


class HeLU(Activation):
    """ReLU forward, backward open down to −α (arXiv:2411.10573)."""

    def __init__(self, d_model: int, hidden: int, options: Any) -> None:
        super().__init__()
        self.alpha = options.alpha

    def forward(self, pre: Tensor, x: Tensor) -> Tensor:
        """max(pre, 0)."""
        # pre + sg(relu(pre) − pre) on the open band, relu's own zero elsewhere.
        opened = torch.where(pre > -self.alpha, pre, pre.detach())
        return opened + (pre.relu() - pre).detach()


class _Jump(torch.autograd.Function):
    """a 1[a > θ], with the box-kernel estimate of ∂/∂θ (arXiv:2407.14435, eq. 11)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(a, theta)
        ctx.bandwidth = bandwidth
        return a * (a > theta)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        a, theta = ctx.saved_tensors
        inside = ((a - theta).abs() < ctx.bandwidth / 2).to(grad.dtype)
        return grad * (a > theta), (-(theta / ctx.bandwidth) * inside * grad).flatten(0, -2).sum(0), None


class _Open(torch.autograd.Function):
    """1[a > θ], with the box-kernel estimate of ∂/∂θ (arXiv:2407.14435, eq. 12)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(a, theta)
        ctx.bandwidth = bandwidth
        return (a > theta).to(a.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        a, theta = ctx.saved_tensors
        inside = ((a - theta).abs() < ctx.bandwidth / 2).to(grad.dtype)
        return None, (-inside * grad).flatten(0, -2).sum(0) / ctx.bandwidth, None


class JumpReLU(Activation):
    """a 1[a > θ], θ = exp(log_theta) a channel (arXiv:2407.14435, eq. 5)."""

    def __init__(self, d_model: int, hidden: int, options: Any) -> None:
        super().__init__()
        self.bandwidth, self.l0_weight = options.bandwidth, options.l0_weight
        self.log_theta = nn.Parameter(torch.full((hidden,), float(options.threshold)).log())

    def forward(self, pre: Tensor, x: Tensor) -> Tensor:
        """φ(pre)."""
        result: Tensor = _Jump.apply(pre, self.log_theta.exp().to(pre.dtype), self.bandwidth)
        return result

    def losses(self, pre: Tensor) -> dict[str, Tensor]:
        """`l0`: the mean number of open units a row, weighted."""
        if not self.l0_weight or not len(pre):
            return {}
        opened: Tensor = _Open.apply(pre.float(), self.log_theta.exp(), self.bandwidth)
        return {"l0": self.l0_weight * opened.sum(-1).mean()}


class SmeLU(Activation):
    """0, a parabola on [−β, β], then the identity (arXiv:2202.06499)."""

    def __init__(self, d_model: int, hidden: int, options: Any) -> None:
        super().__init__()
        self.beta = options.beta

    def forward(self, pre: Tensor, x: Tensor) -> Tensor:
        """φ(pre)."""
        middle = (pre + self.beta).square() / (4 * self.beta)
        return torch.where(pre.abs() <= self.beta, middle, pre.relu())
