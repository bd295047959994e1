"""Dense feed-forward layers, the baselines of every mixture. Shapes: B batch, T time, D width, H hidden width."""

from __future__ import annotations

from torch import Tensor

from workloads.activations.base import Activation
from workloads.activations.options import ACTIVATIONS
from workloads.feedforward.options import dense as options
from workloads.feedforward.width import default_hidden, expert_hidden, matrix
from workloads.slots import Feedforward, LayerContext


def build_activation(chosen: object, d_model: int, hidden: int) -> Activation:
    """The activation that its options name."""
    activation: Activation = ACTIVATIONS[chosen.name].load()(d_model, hidden, chosen)  # type: ignore[attr-defined]
    return activation


def is_gated(chosen: object) -> bool:
    """Whether the chosen activation multiplies a second projection."""
    return build_activation(chosen, 8, 8 * getattr(chosen, "groups", 1)).gated


class Dense(Feedforward):
    """y = (φ(x W_gate) ⊙ x W_up) W_down, or y = φ(x W_up) W_down; no biases (arXiv:2002.05202, eq. 5-6)."""

    def __init__(self, d_model: int, chosen: options.Dense) -> None:
        super().__init__()
        hidden = chosen.hidden or default_hidden(d_model, gated=is_gated(chosen.activation))
        self._build(d_model, hidden, chosen.activation)

    def _build(self, d_model: int, hidden: int, activation: object) -> None:
        self.d_model, self.hidden = d_model, hidden
        self.activation = build_activation(activation, d_model, hidden)
        self.gate = matrix(d_model, hidden) if self.activation.gated else None
        self.up = matrix(d_model, hidden)
        self.down = matrix(hidden, d_model)

    def forward(self, x: Tensor, context: LayerContext | None = None) -> Tensor:
        """Args: x [B, T, D]. Returns y [B, T, D]."""
        up = x @ self.up
        pre = up if self.gate is None else x @ self.gate
        hidden = self.activation(pre, x) if self.gate is None else self.activation(pre, x) * up
        if context is not None:
            context.add(self.activation.losses(pre.flatten(0, -2)), {})
        return self.activation.finish(hidden @ self.down, x)


class DenseMatched(Dense):
    """The dense layer of equal FLOPs a token or of equal parameters to a mixture."""

    def __init__(self, d_model: int, chosen: options.DenseMatched) -> None:
        super(Dense, self).__init__()
        gated = is_gated(chosen.activation)
        one = chosen.expert_hidden or expert_hidden(d_model, chosen.k, gated=gated)
        self._build(d_model, one * (chosen.num_experts if chosen.match == "total" else chosen.k), chosen.activation)
