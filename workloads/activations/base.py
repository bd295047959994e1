"""What every activation of a feed-forward promises.

Shapes: M rows, D model width, H hidden width.
"""

from __future__ import annotations

from torch import Tensor, nn


class Activation(nn.Module):
    """Built as `Activation(d_model, hidden, options)`.

    gated: a second projection of the input multiplies the result.
    kernel: name of `kernels.fused_glu_mlp`'s function that computes exactly this gate, where there is one.
    """

    gated: bool = False
    kernel: str | None = None

    def forward(self, pre: Tensor, x: Tensor) -> Tensor:
        """Args: pre [M, H], the first projection; x [M, D], the layer's input. Returns φ [M, H], dtype of `pre`."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def losses(self, pre: Tensor) -> dict[str, Tensor]:
        """Weighted scalars that join the training loss, by name. Args: pre [M, H]."""
        return {}

    def finish(self, y: Tensor, x: Tensor) -> Tensor:
        """The layer's output [..., D] as it joins the residual stream. Args: y, x [..., D], output and input."""
        return y
