"""The tasks that a sweep file may name. One file a family; listed here once. Torch-free."""

from __future__ import annotations

from workloads.method import registry
from workloads.tasks.options import language, memory, recall, state_tracking

TASKS = registry((*language.METHODS, *memory.METHODS, *recall.METHODS, *state_tracking.METHODS))
