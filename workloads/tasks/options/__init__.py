"""The tasks that a sweep file may name. One file a family; listed here once. Torch-free."""

from __future__ import annotations

from workloads.method import registry
from workloads.tasks.options import (
    algorithms,
    cpu,
    forecasting,
    formal,
    images,
    language,
    memory,
    music,
    recall,
    state_tracking,
    tabular,
)

FAMILIES = (algorithms, cpu, forecasting, formal, images, language, memory, music, recall, state_tracking, tabular)
TASKS = registry(method for family in FAMILIES for method in family.METHODS)
