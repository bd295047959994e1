"""The mixers that a sweep file may name. One file a family; listed here once. Torch-free."""

from __future__ import annotations

from workloads.method import registry
from workloads.mixers.options import attention, elementwise, memory, recurrent

MIXERS = registry((*recurrent.METHODS, *elementwise.METHODS, *attention.METHODS, *memory.METHODS))
