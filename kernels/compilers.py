"""Operations that torch.compile leaves as a call and compiles around; the others enter its graph as operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
R = TypeVar("R")


def opaque(operation: Callable[P, R]) -> Callable[P, R]:
    """`operation`, which compilers do not look into: a loop over time, which they would unroll step by step."""
    # torch.compiler.disable does the same, but imports the compiler at once, a second or two with every use of kernels
    return cast(Callable[P, R], torch._disable_dynamo(operation))
