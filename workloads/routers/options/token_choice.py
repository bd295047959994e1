"""Options of the routers in which each token chooses its experts. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options


@options
class TopK:
    """Softmax top-k: g = softmax(W x), the k largest kept, renormalised to one unless k = 1."""

    name: Literal["topk"] = "topk"
    k: int = option(2, "Experts a token.", ge=1, sweep=[1, 2, 4])
    renormalize: bool = option(
        True, "Divide the kept gates by their sum; never at k = 1, where it would cut the gate's gradient."
    )
    balance_weight: float = option(
        0.01, "Weight of the Switch/GShard balance loss.", ge=0, sweep=[0.0, 0.001, 0.01, 0.1]
    )
    z_weight: float = option(0.0, "Weight of the router z-loss.", ge=0, sweep=[0.0, 1e-3])


METHODS = (Method(TopK, "workloads.routers.token_choice:TopK", "Mixtral, arXiv:2401.04088, sec. 2.1"),)
