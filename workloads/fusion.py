"""Fuses whole trained models token by token: specialists of one vocabulary under one gate (UltraFuser).

w = softmax_s(γ(h_s)) over the specialists' last hidden states, logits = Σ_s w_s o_s (arXiv:2403.08281, sec. 3).
`workloads.fuse` does it to trials' checkpoints.
Shapes: B batch, T time, D model width, V vocabulary, S specialists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workloads.routers.fusion import TokenFusion
from workloads.routers.options import ROUTERS
from workloads.shell import ModelOutput, SequenceModel


class FusedModel(nn.Module):
    """Specialists and the gate over them. All specialists run, at inference too.

    Stage 1 trains the gate alone: `FusedModel(models)` freezes the specialists; `thaw()` begins stage 2. `gate`:
    options of the router `token_fusion`, its defaults when left out.

    Raises:
        ValueError: no specialists, or specialists of different widths or vocabularies.
    """

    def __init__(self, specialists: Sequence[SequenceModel], gate: Any = None) -> None:
        super().__init__()
        shapes = {(each.config.d_model, each.signature.vocab_size, each.signature.outputs) for each in specialists}
        if len(shapes) != 1:
            raise ValueError(
                f"specialists must share d_model, vocabulary and outputs; got {sorted(shapes, key=str) or 'none'}"
            )
        self.specialists = nn.ModuleList(specialists)
        width = specialists[0].config.d_model
        self.gate = TokenFusion(width, len(specialists), gate or ROUTERS["token_fusion"].options())
        self.specialists.requires_grad_(False)

    def thaw(self) -> None:
        """Let the specialists learn too: stage 2."""
        self.specialists.requires_grad_(True)

    def forward(self, inputs: Tensor, state: Sequence[Any] | None = None) -> ModelOutput:
        """Args: inputs as a specialist takes them; state as an earlier output's. Returns fused logits [B, T, V]."""
        before = [None] * len(self.specialists) if state is None else list(state)
        seen = [_with_hidden(model, inputs, was) for model, was in zip(self.specialists, before, strict=True)]  # type: ignore[arg-type]
        hidden = torch.stack([h for h, _ in seen], dim=-2)
        weight = self.gate.weigh(hidden.float())
        logits = torch.stack([output.logits for _, output in seen], dim=-2)
        fused = (weight[..., None].to(logits.dtype) * logits).sum(-2)
        stats = {f"gate/{s}": weight[..., s].mean().detach() for s in range(len(seen))}
        return ModelOutput(fused, tuple(output.state for _, output in seen), {}, stats)


def _with_hidden(model: SequenceModel, inputs: Tensor, state: Any) -> tuple[Tensor, ModelOutput]:
    """A specialist's output, and what its head read."""
    kept: list[Tensor] = []
    handle = model.head.register_forward_pre_hook(lambda _module, args: kept.append(args[0]))
    try:
        output: ModelOutput = model(inputs, state)
    finally:
        handle.remove()
    return kept[0], output
