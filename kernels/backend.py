"""Which form of an operation runs: the reference, the CPU form, or Triton."""

import importlib.util
import os
from typing import Literal, get_args

import torch
from torch import Tensor

# Triton 3.10 turns the fusion of multiply and add off unless told; the kernels are checked with it on
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

Backend = Literal["auto", "reference", "cpu", "triton"]


def triton_is_installed() -> bool:
    """Whether ``import triton`` can work here; finds the package without importing it."""
    return importlib.util.find_spec("triton") is not None


def triton_is_interpreted() -> bool:
    """Whether Triton kernels run in Triton's interpreter, on any device (``TRITON_INTERPRET=1``)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def pick(backend: str, tensor: Tensor) -> Literal["reference", "cpu", "triton"]:
    """The form that runs for ``tensor``: "auto" is Triton on CUDA where Triton is installed, else the CPU form.

    The CPU form is made of PyTorch operators, so it also serves a CUDA tensor on a machine without Triton.

    Raises:
        ValueError: ``backend`` is unknown, or is "triton" where no Triton kernel can run.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}; got {backend!r}")
    if backend == "auto":
        return "triton" if tensor.is_cuda and triton_is_installed() else "cpu"
    if backend == "triton":
        if not triton_is_installed():
            raise ValueError("backend='triton' needs the package triton; install it, or use backend='cpu'")
        if not (tensor.is_cuda or triton_is_interpreted()):
            raise ValueError(
                f"backend='triton' needs CUDA tensors, got one on {tensor.device}; move it with .cuda(), use "
                "backend='auto', or set TRITON_INTERPRET=1 before Python starts to run the interpreter"
            )
        return "triton"
    return "reference" if backend == "reference" else "cpu"


def dot_precision(dtype: torch.dtype) -> str:
    """``input_precision`` of ``tl.dot`` on float32 blocks that were loaded as ``dtype``.

    16-bit inputs lose nothing in tf32. float32 inputs take three tf32 products, which keep 21 bits; AMD has no such
    mode and multiplies float32 as it is.
    """
    if dtype in (torch.bfloat16, torch.float16):
        return "tf32"
    return "ieee" if torch.version.hip else "tf32x3"
