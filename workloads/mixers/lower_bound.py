"""HGRN's lower bound of forget gates, learned once for the whole stack."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.mixers.base import ObservedMixer, undecayed
from workloads.slots import Mixer


class LowerBounds(nn.Module):
    """Γ [L, E], zeros at the start, so that the bounds rise evenly: 0, 1/L, 2/L, ..."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.logits = undecayed(torch.zeros(layers, width))

    def of(self, layer: int) -> Tensor:
        """γ [E] of one layer: Σ_{j<layer} softmax(Γ)_j (HGRN sec. 3.2)."""
        return self.logits.softmax(dim=0)[:layer].sum(dim=0)


class BoundedMixer(ObservedMixer):
    """A mixer with a forget gate of `gate_width` units whose lower bound depends on its place among its kind.

    Alone, or first in its stack, it has none.
    """

    gate_width: int
    bounded: bool
    bounds: LowerBounds | None
    rank: int

    def __init__(self) -> None:
        super().__init__()
        # here and not on the class: a module set later is found only where no class attribute stands in front of it
        self.bounds, self.rank = None, 0

    def place(self, layer: int, stack: Sequence[Mixer]) -> None:
        """Share one table of bounds with the mixers of the same class and width."""
        if not self.bounded:
            return
        kind = [m for m in stack if type(m) is type(self) and m.bounded and m.gate_width == self.gate_width]
        self.rank = kind.index(self)
        first = kind[0]
        if first is self and len(kind) > 1:
            like = next(self.parameters())
            self.bounds = LowerBounds(len(kind), self.gate_width).to(like)
        self.bounds = first.bounds

    def forget_gate(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(log f, 1 − f) with f = γ + (1 − γ) σ(logits), logits [..., gate_width] in float32 or wider."""
        if self.bounds is None or self.rank == 0:
            return F.logsigmoid(logits), (-logits).sigmoid()
        gamma = self.bounds.of(self.rank).to(logits.dtype)
        write = (1 - gamma) * (-logits).sigmoid()
        return torch.log1p(-write), write
