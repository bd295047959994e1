"""Grouped matrix product on PyTorch's own grouped kernel where it can run, else a loop of matrix products.

PyTorch's kernel loops over the experts in C++, which matters for many experts with few rows each. It takes float32,
bfloat16 and float16 with row lengths of a multiple of 16 bytes; float64 and odd widths take the loop.

There are two doors to the same two products: an autograd.Function for eager code, and registered operators for
torch.compile, which cannot trace PyTorch's kernel in float32. The operators alone would do, but cost 70 µs more a call.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def grouped_mm(x: Tensor, w: Tensor, counts: Tensor) -> Tensor:
    """See :func:`kernels.grouped_mm.grouped_mm`."""
    if torch.compiler.is_compiling():
        return _compiled_rows_by_weights(x, w, counts)
    return _GroupedMM.apply(x, w, counts)


def rows_by_weights(x: Tensor, w: Tensor, counts: Tensor) -> Tensor:
    """y[rows of e] = x[rows of e] @ w[e]; x [M, I], w [E, I, O] -> y [M, O]. Not differentiable."""
    x = x.contiguous()
    if _has_native_form(x, w):
        return F.grouped_mm(x, w, offs=counts.cumsum(0, dtype=torch.int32))
    sizes = counts.tolist()
    y = x.new_empty(x.shape[0], w.shape[2])
    for x_e, w_e, y_e in zip(x.split(sizes), w.unbind(0), y.split(sizes), strict=True):
        torch.mm(x_e, w_e, out=y_e)
    return y


def rows_by_rows(x: Tensor, dy: Tensor, counts: Tensor) -> Tensor:
    """dw[e] = x[rows of e]^T @ dy[rows of e], zero for no rows; x [M, I], dy [M, O] -> dw [E, I, O]. Not
    differentiable."""
    x, dy = x.contiguous(), dy.contiguous()
    if _has_native_form(x, dy):
        return F.grouped_mm(x.t(), dy, offs=counts.cumsum(0, dtype=torch.int32))
    sizes = counts.tolist()
    dw = x.new_empty(len(sizes), x.shape[1], dy.shape[1])
    for x_e, dy_e, dw_e in zip(x.split(sizes), dy.split(sizes), dw.unbind(0), strict=True):
        torch.mm(x_e.t(), dy_e, out=dw_e)
    return dw


def _has_native_form(*matrices: Tensor) -> bool:
    """Whether F.grouped_mm takes these: one unit stride, the others of whole 16 bytes, on a 16-byte address."""
    for m in matrices:
        if m.dtype not in (torch.float32, torch.bfloat16, torch.float16) or m.numel() == 0 or m.data_ptr() % 16:
            return False
        row, column = m.stride()[-2:]
        long, length = (row, m.shape[-1]) if column == 1 else (column, m.shape[-2])
        if 1 not in (row, column) or long < length:
            return False
        if any(stride * m.element_size() % 16 for stride in (long, *m.stride()[:-2])):
            return False
    return True


class _GroupedMM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, counts: Tensor) -> Tensor:
        ctx.save_for_backward(x, w, counts)
        return rows_by_weights(x, w, counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, w, counts = ctx.saved_tensors
        dx = rows_by_weights(dy, w.transpose(1, 2), counts) if ctx.needs_input_grad[0] else None
        dw = rows_by_rows(x, dy, counts) if ctx.needs_input_grad[1] else None
        return dx, dw, None


_compiled_rows_by_weights = torch.library.custom_op("orch::rows_by_weights", rows_by_weights, mutates_args=())
_compiled_rows_by_rows = torch.library.custom_op("orch::rows_by_rows", rows_by_rows, mutates_args=())


@_compiled_rows_by_weights.register_fake
def _(x: Tensor, w: Tensor, counts: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], w.shape[2])


@_compiled_rows_by_rows.register_fake
def _(x: Tensor, dy: Tensor, counts: Tensor) -> Tensor:
    return x.new_empty(counts.shape[0], x.shape[1], dy.shape[1])


def _save_inputs(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _compiled_backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, w, counts = ctx.saved_tensors
    dx = _compiled_rows_by_weights(dy, w.transpose(1, 2), counts) if ctx.needs_input_grad[0] else None
    dw = _compiled_rows_by_rows(x, dy, counts) if ctx.needs_input_grad[1] else None
    return dx, dw, None


_compiled_rows_by_weights.register_autograd(_compiled_backward, setup_context=_save_inputs)
