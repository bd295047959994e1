"""The scan in C: one pass over memory forward, one backward."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from kernels import native

_SOURCE = Path(__file__).with_name("scan.c")
_SUFFIX = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.complex64: "complex64",
    torch.complex128: "complex128",
}
_GRAIN = 1 << 15  # elements: below this a thread costs more than it brings
_LINE = 64  # channels: whole cache lines, so that no two threads write the same one


class _Part(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("steps", "b0", "b1", "d0", "d1", "reverse")]


def is_available(x: Tensor) -> bool:
    """Whether the C form can take ``x``: on the CPU, of a dtype that it knows, and built here."""
    return x.device.type == "cpu" and x.dtype in _SUFFIX and native.load(_SOURCE) is not None


def _rows(x: Tensor) -> Tensor:
    # conj is resolved because it is a flag on the tensor that C does not see
    x = x.resolve_conj()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _address(x: Tensor) -> tuple[ctypes.c_void_p, ctypes.Array[ctypes.c_int64]]:
    return ctypes.c_void_p(x.data_ptr()), (ctypes.c_int64 * 2)(x.stride(0), x.stride(1))


def _state(h0: Tensor | None) -> tuple[ctypes.c_void_p, ctypes.c_int64]:
    return (
        (ctypes.c_void_p(None), ctypes.c_int64(0))
        if h0 is None
        else (ctypes.c_void_p(h0.data_ptr()), ctypes.c_int64(h0.stride(0)))
    )


def _run(name: str, x: Tensor, reverse: bool, *arguments: object) -> None:
    library = native.load(_SOURCE)
    assert library is not None
    function = library[f"{name}_{_SUFFIX[x.dtype]}"]
    batch, steps, channels = x.shape
    blocks = -(-channels // _LINE)
    by_channels = batch < torch.get_num_threads()

    def work(first: int, end: int) -> None:
        bounds = (0, batch, _LINE * first, min(_LINE * end, channels)) if by_channels else (first, end, 0, channels)
        function(*arguments, ctypes.byref(_Part(steps, *bounds, reverse)))

    items = blocks if by_channels else batch
    native.parallel(work, items, grain=-(-_GRAIN * items // max(x.numel(), 1)))


def forward(a: Tensor, x: Tensor, h0: Tensor | None, reverse: bool) -> Tensor:
    """The states h [B, T, D]; the inputs share one dtype."""
    a, x = _rows(a), _rows(x)
    h0 = None if h0 is None else _rows(h0)
    h = torch.empty(x.shape, dtype=x.dtype)
    _run("forward", x, reverse, *_address(a), *_address(x), *_state(h0), *_address(h))
    return h


def backward(a: Tensor, h: Tensor, h0: Tensor | None, dh: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """(da, dx) from the states ``h`` and their gradient ``dh``."""
    a, h, dh = _rows(a), _rows(h), _rows(dh)
    h0 = None if h0 is None else _rows(h0)
    da, dx = torch.empty(h.shape, dtype=h.dtype), torch.empty(h.shape, dtype=h.dtype)
    _run("backward", h, reverse, *_address(a), *_address(h), *_state(h0), *_address(dh), *_address(da), *_address(dx))
    return da, dx
