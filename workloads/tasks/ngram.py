"""Byte n-gram language model: interpolated Witten-Bell, counted with sorting. The bar that a neural model must clear.

p(b | c) = (count(c b) + t(c) · p(b | c')) / (count(c) + t(c)), where c' is c without its first byte, t(c) the number
of distinct bytes seen after c, and the empty context falls back to 1/256.
Source: Witten and Bell 1991; Chen and Goodman 1999 (10.1006/csla.1999.0128), sec. 2.4.
"""

from __future__ import annotations

import numpy as np

BYTES = 256
Array = np.ndarray


def bits_per_byte(train: Array, start: Array, text: Array, order: int = 5) -> float:
    """Mean of −log₂ p over `text`, for the model of `order` bytes (order − 1 of context).

    Args:
        train: uint8, what is counted.
        start: uint8, the bytes before `text`, as context for its first ones; at least order − 1.
        text: uint8, what is scored. Nothing is learned from it.
        order: 1 to 8, so that a window fits into 64 bits.
    """
    if not 1 <= order <= 8:
        raise ValueError(f"order must be from 1 to 8, got {order}")
    history = np.concatenate([start[len(start) - order + 1 :] if order > 1 else start[:0], text])
    probability = np.full(len(text), 1 / BYTES)
    for width in range(1, order + 1):
        seen, windows = np.unique(_windows(train, width), return_counts=True)
        # Windows are sorted, so those of one context lie side by side
        context, first, distinct = np.unique(seen // BYTES, return_index=True, return_counts=True)
        total = np.add.reduceat(windows, first)
        asked = _windows(history[order - width :], width)
        hits = _looked_up(seen, windows, asked)
        totals = _looked_up(context, total, asked // BYTES)
        kinds = _looked_up(context, distinct, asked // BYTES)
        known = totals > 0
        probability[known] = ((hits + kinds * probability) / np.maximum(totals + kinds, 1))[known]
    return float(-np.log2(probability).mean())


def _windows(data: Array, width: int) -> Array:
    """Every run of `width` bytes as one number, the last byte lowest."""
    count = len(data) - width + 1
    code = np.zeros(count, np.uint64)
    for i in range(width):
        code = code * np.uint64(BYTES) + data[i : i + count].astype(np.uint64)
    return code


def _looked_up(keys: Array, values: Array, asked: Array) -> Array:
    """values where asked is among the sorted keys, else 0."""
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[at] == asked, values[at], 0)
