"""The scan as a PyTorch operator with its gradient: in C where that could be built, else in blocks of PyTorch.

An operator of ``torch.library`` and not a plain autograd function, so that ``torch.compile`` takes it whole.
"""

from typing import Any

import torch
from torch import Tensor

from kernels.linear_scan import blocked, native


@torch.library.custom_op("orch_kernels::linear_scan", mutates_args=())
def _scan(a: Tensor, x: Tensor, h0: Tensor | None, reverse: bool) -> Tensor:
    return (native if native.is_available(x) else blocked).forward(a, x, h0, reverse)


@torch.library.custom_op("orch_kernels::linear_scan_backward", mutates_args=())
def _scan_backward(a: Tensor, h: Tensor, h0: Tensor | None, dh: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    return (native if native.is_available(h) else blocked).backward(a, h, h0, dh, reverse)


@_scan.register_fake
def _(a: Tensor, x: Tensor, h0: Tensor | None, reverse: bool) -> Tensor:
    return x.new_empty(x.shape)


@_scan_backward.register_fake
def _(a: Tensor, h: Tensor, h0: Tensor | None, dh: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    return h.new_empty(h.shape), h.new_empty(h.shape)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, bool], output: Tensor) -> None:
    a, _, h0, ctx.reverse = inputs
    ctx.save_for_backward(a, output, h0)


def _differentiate(ctx: Any, dh: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
    a, h, h0 = ctx.saved_tensors
    da, dx = _scan_backward(a, h, h0, dh, ctx.reverse)
    first = -1 if ctx.reverse else 0
    return da, dx, None if h0 is None else a[:, first].conj() * dx[:, first], None


_scan.register_autograd(_differentiate, setup_context=_save)


def linear_scan(a: Tensor, x: Tensor, h0: Tensor | None = None, reverse: bool = False) -> Tensor:
    """h_t = a_t ⊙ h_{t−1} + x_t, accumulated in float32 or wider; see :func:`kernels.linear_scan`."""
    result = torch.promote_types(a.dtype, x.dtype)
    inner = torch.promote_types(result, torch.float32)
    h = _scan(a.to(inner), x.to(inner), None if h0 is None else h0.to(inner), reverse)
    return h.to(result)
