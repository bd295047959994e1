"""Gated MLP of every expert over its own rows, as a loop: the judge of the other forms."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor


def fused_glu_mlp(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor, counts: Tensor, activation: str) -> Tensor:
    """See :func:`kernels.fused_glu_mlp.fused_glu_mlp`."""
    act = ACTIVATIONS[activation]
    outputs = []
    start = 0
    for e, count in enumerate(counts.tolist()):
        rows = x[start : start + count]
        outputs.append((act(rows @ w_gate[e]) * (rows @ w_up[e])) @ w_down[e])
        start += count
    return torch.cat(outputs)


def _identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"silu": F.silu, "gelu": F.gelu, "relu": F.relu, "identity": _identity, "sigmoid": torch.sigmoid}
)
