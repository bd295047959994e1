"""Exact balanced assignment of many rows to few columns, each column taking a bounded number of rows.

Shapes: T rows, E columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PRICE_STEPS = 0.25 * 0.9 ** np.arange(60)
"""Steps of the prices, as shares of the scores' range."""


def balanced_assignment(scores: Floats, capacity: int) -> Ints:
    """The assignment of greatest total score in which no column has more than `capacity` rows.

    Prices that nearly balance the columns are found first; every row starts at its best column less its price. Rows
    then leave overfull columns along the cheapest chains of moves until none is overfull. Chains are shortest paths
    over the E columns (successive shortest paths for minimum-cost flow, Ahuja, Magnanti, Orlin 1993, sec. 9.7), so the
    result is exact and the work follows the surplus, not T².

    Args:
        scores: [T, E] finite.
        capacity: rows of a column at most; capacity · E >= T.

    Returns:
        [T] the column of each row.

    Raises:
        ValueError: the columns have no room for all rows.
    """
    num_rows, num_columns = scores.shape
    if capacity * num_columns < num_rows:
        raise ValueError(
            f"{num_columns} columns with room for {capacity} rows each cannot take {num_rows} rows; "
            f"capacity must be at least {-(-num_rows // num_columns)}"
        )
    # Rows that are indifferent fill the columns: with every column exactly full, any prices are a valid start.
    scores = np.pad(scores, ((0, capacity * num_columns - num_rows), (0, 0)))
    assigned = (scores - _balancing_prices(scores, capacity)).argmax(1)
    counts = np.bincount(assigned, minlength=num_columns)
    cost, mover = _moves(scores, assigned)
    while (counts > capacity).any():
        chain = _cheapest_chain(cost, np.flatnonzero(counts > capacity), counts < capacity)
        steps = list(pairwise(chain))
        rows = [mover[source, target] for source, target in steps]
        for row, (_, target) in zip(rows, steps, strict=True):
            assigned[row] = target
        counts[chain[0]] -= 1
        counts[chain[-1]] += 1
        for column in chain:
            cost[column], mover[column] = _moves_from(scores, assigned, column)
    return assigned[:num_rows]


def _balancing_prices(scores: Floats, capacity: int) -> Floats:
    """Prices [E] under which the best columns of the rows are nearly balanced: dual ascent with a falling step."""
    prices = np.zeros(scores.shape[1])
    best, least = prices, np.inf
    for step in PRICE_STEPS * max(float(np.ptp(scores)), np.finfo(np.float64).tiny):
        counts = np.bincount((scores - prices).argmax(1), minlength=len(prices))
        surplus = np.maximum(counts - capacity, 0).sum()
        if surplus < least:
            best, least = prices, surplus
        prices = prices + step * np.clip((counts - capacity) / capacity, -1.0, 1.0)
    return best


def _moves(scores: Floats, assigned: Ints) -> tuple[Floats, Ints]:
    """What the cheapest move of one row from column e to f costs, [E, E], and which row makes it."""
    pairs = [_moves_from(scores, assigned, column) for column in range(scores.shape[1])]
    return np.stack([cost for cost, _ in pairs]), np.stack([mover for _, mover in pairs])


def _moves_from(scores: Floats, assigned: Ints, column: int) -> tuple[Floats, Ints]:
    rows = np.flatnonzero(assigned == column)
    if not len(rows):
        return np.full(scores.shape[1], np.inf), np.zeros(scores.shape[1], dtype=np.int64)
    loss = scores[rows, column][:, None] - scores[rows]
    best = loss.argmin(0)
    return np.take_along_axis(loss, best[None], 0)[0], rows[best]


def _cheapest_chain(cost: Floats, sources: Ints, is_target: NDArray[np.bool_]) -> list[int]:
    """Columns on the cheapest path from a source to a target (Bellman-Ford, all edges at once)."""
    num_columns = len(cost)
    distance = np.full(num_columns, np.inf)
    distance[sources] = 0.0
    parent = np.full(num_columns, -1)
    for _ in range(num_columns):
        through = distance[:, None] + cost
        nearest = through.argmin(0)
        shorter = through[nearest, np.arange(num_columns)] < distance - 1e-12
        if not shorter.any():
            break
        distance = np.where(shorter, through.min(0), distance)
        parent = np.where(shorter, nearest, parent)
    end = int(np.where(is_target, distance, np.inf).argmin())
    return list(_back_from(end, parent))[::-1]


def _back_from(column: int, parent: Ints) -> Iterator[int]:
    while column >= 0:
        yield column
        column = int(parent[column])
