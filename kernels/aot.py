"""What it takes to compile a Triton kernel where there is no device: the argument types of one real launch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class AotSpec:
    """One kernel under one set of argument types; each ``triton_impl`` lists its own in ``AOT_SPECS``.

    Attributes:
        name: what the report calls it, e.g. "linear_scan.forward fp32".
        kernel: the function under ``@triton.jit``.
        types: argument name -> Triton type, "*fp32" for a pointer, "i32" or "fp32" for a scalar, "i32:16" for one that
            is a multiple of 16, as the launcher finds it; not the constexprs.
        constexprs: the arguments marked ``tl.constexpr``, with the values of a launch.
        num_warps: as at the launch.
        num_stages: as at the launch.
        backend: "cuda" or "hip" where the kernel is launched so on chips of one maker alone; empty for both.
    """

    name: str
    kernel: Any
    types: Mapping[str, str]
    constexprs: Mapping[str, Any] = field(default_factory=dict)
    num_warps: int = 4
    num_stages: int = 2
    backend: str = ""
