"""Options of the gate that fuses specialists. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options


@options
class TokenFusion:
    """UltraFuser's token-level gate: w = softmax_s(γ(h_s)) over the specialists' own outputs h_s; y = Σ_s w_s h_s.

    All experts run, and the gate reads what they made. In the first `gate_only` of the training the experts rest and
    the gate alone learns. `workloads.fusion` puts the same gate over whole frozen models. Outputs are normalised
    before γ, which otherwise favours the expert of largest norm. A shared γ starts at 0: a uniform mean.
    """

    name: Literal["token_fusion"] = "token_fusion"
    shared_gate: bool = option(True, "One γ for all specialists, or one each.", sweep=[True, False])
    normalize: bool = option(True, "Normalise what γ reads.", sweep=[True, False])
    gate_only: float = option(
        0.1, "Share of the training in which the experts rest.", ge=0, le=1, sweep=[0.0, 0.1, 0.3]
    )


METHODS = (Method(TokenFusion, "workloads.routers.fusion:TokenFusion", "UltraFuser, arXiv:2403.08281, sec. 3"),)
