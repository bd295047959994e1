"""Griffin: Hawk's recurrent blocks and local attention in one mixer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from workloads.mixers.attention import LocalAttention
from workloads.mixers.base import ObservedMixer
from workloads.mixers.options.attention import LocalAttention as AttentionOptions
from workloads.mixers.options.elementwise import RGLRU as RecurrentOptions
from workloads.mixers.options.elementwise import Griffin as Options
from workloads.mixers.parts import HeadNorm
from workloads.mixers.rg_lru import RGLRU
from workloads.slots import Mixer

State = tuple[Any, ...]


class Griffin(ObservedMixer):
    """A short residual stack of recurrence and attention; see the options."""

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model = d_model
        self.mixers = nn.ModuleList(_block(kind, d_model, options) for kind in options.pattern)
        self.norms = nn.ModuleList(HeadNorm(d_model) for _ in options.pattern[1:])

    def place(self, layer: int, stack: Sequence[Mixer]) -> None:
        """Scale the blocks' outputs to the depth of the whole stack."""
        blocks = [inner for outer in stack for inner in getattr(outer, "mixers", [outer])]
        for mixer in self.mixers:
            cast(Mixer, mixer).place(layer, blocks)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], one state a block)."""
        states = state or (None,) * len(self.mixers)
        total, after = self._run(0, x, states[0])
        for i, norm in enumerate(self.norms, start=1):
            y, last = self._run(i, norm(x + total), states[i])
            total, after = total + y, after + last
        return total, after

    def _run(self, i: int, x: Tensor, state: Any) -> tuple[Tensor, State]:
        mixer = cast(ObservedMixer, self.mixers[i])
        mixer.record_gates = self.record_gates
        y, state = mixer(x, state)
        self.last_gate = mixer.last_gate or self.last_gate
        return y, (state,)


def _block(kind: str, d_model: int, options: Options) -> ObservedMixer:
    shared: dict[str, Any]
    if kind == "recurrent":
        shared = {"num_blocks": options.num_blocks, "expand": options.expand, "conv_width": options.conv_width}
        return RGLRU(d_model, RecurrentOptions(**shared))
    # multi-query with half of each head rotated, as in the released models
    shared = {"window": options.window, "num_heads": options.num_heads, "num_kv_heads": 1, "rotary_fraction": 0.5}
    return LocalAttention(d_model, AttentionOptions(**shared))
