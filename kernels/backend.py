"""Which form of an operation runs: the reference, the CPU form, or Triton."""

import importlib.util
import os
from typing import Literal, get_args

from torch import Tensor

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
