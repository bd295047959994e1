"""Options of the token-choice routers with a capacity: what finds no room is dropped. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options
from workloads.routers.options.common import Capacity


@options
class GShard(Capacity):
    """Top-2 with capacity: the best expert always, the second at random in proportion to its weight.

    p = softmax(W x); g1, g2 = p1, p2 over their sum. The second choice is kept with probability min(1, 2 g2)
    (random), is drawn anew from the rest (sampling), or always kept (all); evaluation keeps all. In training first
    choices are served before second ones, so that an earlier token's second choice may give way to a later token's
    first; evaluation serves token after token. Balance loss E Σ f p̄ over first choices. Up to 2N assignments.
    """

    name: Literal["gshard"] = "gshard"
    capacity_factor: float = option(
        1.0, "Capacity factor in training; 0 drops nothing.", ge=0, sweep=[0.0, 1.0, 1.25, 2.0]
    )
    policy: Literal["random", "sampling", "all"] = option(
        "random", "What becomes of the second choice in training.", sweep=["random", "sampling", "all"]
    )
    normalize_before_dropping: bool = option(
        True, "Normalise the two gates before choices are dropped (the paper), or the survivors afterwards (NLLB)."
    )
    prioritized: bool = option(False, "Serve confident tokens first in training, instead of earlier ones.")
    balance_weight: float = option(0.01, "Weight of the balance loss.", ge=0, sweep=[0.001, 0.01, 0.1])
    z_weight: float = option(0.0, "Weight of the router z-loss.", ge=0, sweep=[0.0, 1e-3])


@options
class GLaM(GShard):
    """GLaM's gate: GShard's top-2 with both choices kept and capacity factor 2.

    GLaM puts it in every other layer, E = 64, with GELU-gated dense layers between: give `feedforward` as the
    pattern [{name: dense, activation: geglu}, {name: moe, router: glam}].
    """

    name: Literal["glam"] = "glam"  # type: ignore[assignment]
    capacity_factor: float = option(2.0, "Capacity factor in training; 0 drops nothing.", ge=0, sweep=[0.0, 1.25, 2.0])
    policy: Literal["random", "sampling", "all"] = option("all", "What becomes of the second choice in training.")


@options
class Switch(Capacity):
    """Top-1 with capacity: e = argmax p, g = p_e (never renormalised), p = softmax(W (x ⊙ U(1 − ε, 1 + ε))).

    Losses: 0.01 · E Σ f p̄ and 0.001 · mean (logsumexp z)². N assignments less the dropped ones.
    """

    name: Literal["switch"] = "switch"
    jitter: float = option(
        0.01, "Half-width ε of the multiplicative noise on the gate's input, in training.", ge=0, sweep=[0.0, 0.01, 0.1]
    )
    balance_weight: float = option(0.01, "Weight of the balance loss.", ge=0, sweep=[0.001, 0.01, 0.1])
    z_weight: float = option(0.001, "Weight of the router z-loss.", ge=0, sweep=[0.0, 1e-3, 1e-2])


METHODS = (
    Method(GShard, "workloads.routers.capacity:GShard", "GShard, arXiv:2006.16668, alg. 1"),
    Method(GLaM, "workloads.routers.capacity:GShard", "GLaM, arXiv:2112.06905, sec. 4"),
    Method(
        Switch,
        "workloads.routers.capacity:Switch",
        "Switch Transformers, arXiv:2101.03961, sec. 2; ST-MoE, arXiv:2202.08906",
    ),
)
