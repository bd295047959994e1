"""The feed-forward layers that a sweep file may name. Torch-free."""

from __future__ import annotations

from workloads.feedforward.options import dense, moe
from workloads.method import registry

FEEDFORWARDS = registry((*dense.METHODS, *moe.METHODS))
