"""The scan in C: one pass over memory forward, one backward."""

from pathlib import Path

import torch
from torch import Tensor

from kernels.native import call, can_run, empty, integers, parallel, rows, strides

_SOURCE = Path(__file__).with_name("scan.c")
_GRAIN = 1 << 15  # elements: below this a thread costs more than it brings
_LINE = 64  # channels: whole cache lines, so that no two threads write the same one


def is_available(x: Tensor) -> bool:
    """Whether the C form can take ``x``."""
    return can_run(_SOURCE, x)


def _run(name: str, reverse: bool, x: Tensor, *tensors: Tensor | None) -> None:
    batch, steps, channels = x.shape
    blocks = -(-channels // _LINE)
    by_channels = batch < torch.get_num_threads()
    arguments = [
        part for tensor in tensors for part in ((tensor, strides(tensor)) if tensor is not None else (None,) * 2)
    ]

    def work(first: int, end: int) -> None:
        bounds = (0, batch, _LINE * first, min(_LINE * end, channels)) if by_channels else (first, end, 0, channels)
        kind = "complex" if x.is_complex() else "real"
        call(_SOURCE, f"{name}_{kind}", x.dtype, *arguments, integers(steps, reverse, *bounds))

    items = blocks if by_channels else batch
    parallel(work, items, grain=-(-_GRAIN * items // max(x.numel(), 1)))


def forward(a: Tensor, x: Tensor, h0: Tensor | None, reverse: bool) -> Tensor:
    """The states h [B, T, D]; the inputs share one dtype."""
    h = empty(*x.shape, dtype=x.dtype)
    _run("forward", reverse, x, rows(a), rows(x), None if h0 is None else rows(h0), h)
    return h


def backward(a: Tensor, h: Tensor, h0: Tensor | None, dh: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """(da, dx) from the states ``h`` and their gradient ``dh``."""
    da, dx = empty(*h.shape, dtype=h.dtype), empty(*h.shape, dtype=h.dtype)
    _run("backward", reverse, h, rows(a), rows(h), None if h0 is None else rows(h0), rows(dh), da, dx)
    return da, dx
