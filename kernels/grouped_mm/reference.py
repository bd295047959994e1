"""Grouped matrix product as a loop over the experts: the judge of the other forms."""

import torch
from torch import Tensor


def grouped_mm(x: Tensor, w: Tensor, counts: Tensor) -> Tensor:
    """See :func:`kernels.grouped_mm.grouped_mm`."""
    outputs = []
    start = 0
    for e, count in enumerate(counts.tolist()):
        outputs.append(x[start : start + count] @ w[e])
        start += count
    return torch.cat(outputs)
