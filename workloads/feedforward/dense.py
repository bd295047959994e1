"""Dense feed-forward layers: every token meets every weight. Shapes: B batch, T time, D width, H hidden width."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from workloads.feedforward.options.dense import Dense as Options
from workloads.slots import Feedforward, LayerContext

INIT_STD = 0.02


def gated_hidden(d_model: int) -> int:
    """Hidden width at which a gated MLP has the size of a plain one of four times the width: 8/3 · D, up to 8's."""
    return -(-8 * d_model // 3 // 8) * 8


class Dense(Feedforward):
    """Gated MLP with SiLU: y = W_down (silu(W_gate x) ⊙ W_up x), no biases (arXiv:2002.05202, "SwiGLU")."""

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model = d_model
        hidden = options.hidden or gated_hidden(d_model)
        self.gate_up = nn.Linear(d_model, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, d_model, bias=False)
        for linear in (self.gate_up, self.down):
            nn.init.normal_(linear.weight, std=INIT_STD)

    def forward(self, x: Tensor, context: LayerContext | None = None) -> Tensor:
        """Args: x [B, T, D]. Returns y [B, T, D]."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)
