"""The routers that a sweep file may name. One file a family; listed here once. Torch-free."""

from __future__ import annotations

from workloads.method import registry
from workloads.routers.options import (
    across_layers,
    assigned,
    balanced,
    capacity,
    dense_to_sparse,
    depth,
    fusion,
    hyper,
    kan,
    regularised,
    selectors,
    similarity,
    token_choice,
)

ROUTERS = registry(
    (
        *token_choice.METHODS,
        *capacity.METHODS,
        *assigned.METHODS,
        *balanced.METHODS,
        *similarity.METHODS,
        *across_layers.METHODS,
        *hyper.METHODS,
        *regularised.METHODS,
        *dense_to_sparse.METHODS,
        *selectors.METHODS,
        *kan.METHODS,
        *depth.METHODS,
        *fusion.METHODS,
    )
)
