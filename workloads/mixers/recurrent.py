"""Recurrences with a full recurrent matrix."""

from __future__ import annotations

from torch import Tensor, nn

from workloads.mixers.base import ZooMixer
from workloads.mixers.options.recurrent import GRU as Options


class GRU(ZooMixer):
    """Gated recurrent unit; see the options for the formula."""

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model = d_model
        self.cell = nn.GRU(d_model, d_model, batch_first=True)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [B, T, D] -> (y [B, T, D], h [B, D])."""
        y, h = self.cell(x, None if state is None else state[None])
        return y, h[0]
