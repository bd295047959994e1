"""Options of the routers in which each token chooses its experts, without capacity. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options


@options
class TopK:
    """Softmax top-k: p = softmax(W x), the k largest kept; g = p, or p over the sum of the kept.

    Renormalised gates equal a softmax over the k kept logits and give only these a task gradient. x [N, D], W [E, D];
    N·k assignments. The balance loss counts all k choices, so that its minimum is k.
    """

    name: Literal["topk"] = "topk"
    k: int = option(2, "Experts a token; all of them where there are fewer.", ge=1, sweep=[1, 2, 4, 8])
    renormalize: bool = option(
        True,
        "Divide the kept gates by their sum; never at k = 1, where it would cut the gate's gradient.",
        sweep=[True, False],
    )
    balance_weight: float = option(
        0.01, "Weight of the Switch/GShard balance loss.", ge=0, sweep=[0.0, 0.001, 0.01, 0.1]
    )
    z_weight: float = option(0.0, "Weight of the router z-loss.", ge=0, sweep=[0.0, 1e-3])
    jitter: float = option(
        0.0, "Half-width of the multiplicative uniform noise on the gate's input, in training.", ge=0, sweep=[0.0, 0.01]
    )


METHODS = (Method(TopK, "workloads.routers.token_choice:TopK", "Mixtral, arXiv:2401.04088, sec. 2.1"),)
