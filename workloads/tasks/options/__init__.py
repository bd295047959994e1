"""The tasks that a sweep file may name. Torch-free."""

from __future__ import annotations

from workloads.method import registry
from workloads.tasks.options import language

TASKS = registry((*language.METHODS,))
