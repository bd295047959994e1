"""The mixers that a sweep file may name. One file a family; listed here once. Torch-free."""

from __future__ import annotations

from workloads.method import registry
from workloads.mixers.options import attention, convolution, delta, elementwise, linear_attention, memory, recurrent

MIXERS = registry(
    (
        *recurrent.METHODS,
        *memory.METHODS,
        *elementwise.METHODS,
        *linear_attention.METHODS,
        *delta.METHODS,
        *convolution.METHODS,
        *attention.METHODS,
    )
)
