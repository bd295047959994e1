"""Options that several routers share. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import option, options

Group = Literal["sequence", "batch"]


@options
class SoftmaxTopK:
    """A softmax gate of which the k largest are kept."""

    k: int = option(2, "Experts a token; all of them where there are fewer.", ge=1, sweep=[1, 2, 4, 8])
    renormalize: bool = option(
        True,
        "Divide the kept gates by their sum; never at k = 1, where it would cut the gate's gradient.",
        sweep=[True, False],
    )
    balance_weight: float = option(
        0.01, "Weight of the Switch/GShard balance loss over all k choices.", ge=0, sweep=[0.0, 0.001, 0.01, 0.1]
    )
    z_weight: float = option(0.0, "Weight of the router z-loss.", ge=0, sweep=[0.0, 1e-3])
    jitter: float = option(
        0.0, "Half-width of the multiplicative uniform noise on the gate's input, in training.", ge=0, sweep=[0.0, 0.01]
    )


@options
class Capacity:
    """Room of an expert: ceil(factor · k · T / E) assignments a group of T tokens; the rest is dropped."""

    capacity_factor: float = option(
        1.25, "Capacity factor in training; 0 drops nothing.", ge=0, sweep=[0.0, 1.0, 1.25, 1.5, 2.0]
    )
    eval_capacity_factor: float = option(2.0, "Capacity factor in evaluation; 0 drops nothing.", ge=0)
    min_capacity: int = option(1, "Least room of an expert in a group.", ge=1, sweep=[1, 4])
    group: Group = option(
        "sequence", "Tokens that share the room: a sequence (causal), or the whole batch.", sweep=["sequence", "batch"]
    )
