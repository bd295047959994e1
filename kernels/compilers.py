"""What torch.compile makes of the operations: nothing. It leaves a call where one stands, and compiles around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
R = TypeVar("R")


def opaque(operation: Callable[P, R]) -> Callable[P, R]:
    """`operation`, which compilers do not look into: it is a kernel already, or a loop that they would unroll."""
    # torch.compiler.disable does the same, but imports the compiler at once, a second or two with every use of kernels
    return cast(Callable[P, R], torch._disable_dynamo(operation))
