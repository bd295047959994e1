"""The routers that a sweep file may name. One file a family; listed here once. Torch-free."""

from __future__ import annotations

from workloads.method import registry
from workloads.routers.options import capacity, token_choice

ROUTERS = registry((*token_choice.METHODS, *capacity.METHODS))
