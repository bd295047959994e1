"""What the mixers share beyond the slot's promises: a summary of their gates, and precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workloads.slots import Mixer

FORGOTTEN, KEPT = 0.05, 0.95
LONGEST_MEMORY = 1e6
HISTOGRAM_BINS = 20


class ObservedMixer(Mixer):
    """A mixer that may tell what its gates do.

    record_gates: set it to have `last_gate` filled by each forward pass; off by default, because it costs a pass
        over the gates.
    last_gate: detached float32 scalars of the latest forward pass, None where the mixer has no forget gate:
        gate_mean    mean of the keep weight f (1 keeps everything, 0 forgets everything)
        gate_low     share of f below 0.05
        gate_high    share of f above 0.95
        memory_steps effective memory: median over units of −1 / mean(log f), in steps, at most 1e6
    last_histogram: the same pass's f, counted in `HISTOGRAM_BINS` equal bins of [0, 1].
    """

    record_gates: bool = False
    last_gate: dict[str, Tensor] | None = None
    last_histogram: Tensor | None = None

    def note_gate(self, log_keep: Tensor) -> None:
        """Summarise a gate given as log f, [B, T, ...units]; does nothing unless `record_gates`."""
        if self.record_gates:
            self.last_gate = summary_of_gate(log_keep.detach())
            self.last_histogram = torch.histc(log_keep.detach().float().exp(), HISTOGRAM_BINS, 0.0, 1.0)


def summary_of_gate(log_keep: Tensor) -> dict[str, Tensor]:
    """The figures of `ObservedMixer.last_gate` for a gate log f, [B, T, ...units]."""
    log_keep = log_keep.float()
    keep = log_keep.exp()
    rate = -log_keep.flatten(2).mean((0, 1)) if log_keep.ndim > 2 else -log_keep.mean().reshape(1)
    return {
        "gate_mean": keep.mean(),
        "gate_low": (keep < FORGOTTEN).float().mean(),
        "gate_high": (keep > KEPT).float().mean(),
        "memory_steps": rate.clamp(min=1 / LONGEST_MEMORY).reciprocal().median(),
    }


def wide(x: Tensor) -> Tensor:
    """`x` in float32 or wider: in bfloat16 a gate near 1 rounds to 1, and a product over T amplifies that."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def split_width(width: int, parts: int, what: str) -> int:
    """width / parts.

    Raises:
        ValueError: `parts` does not divide `width`.
    """
    if width % parts:
        fitting = [n for n in range(1, width + 1) if width % n == 0]
        raise ValueError(f"{what} must divide the width {width}, got {parts}; {fitting} do")
    return width // parts


def undecayed(x: Tensor) -> nn.Parameter:
    """A parameter that weight decay leaves alone although it is a matrix: stacked biases, bounds of gates."""
    parameter = nn.Parameter(x)
    parameter.no_weight_decay = True  # type: ignore[attr-defined]
    return parameter
