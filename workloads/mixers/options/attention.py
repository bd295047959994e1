"""Options of the mixers that are built around softmax attention. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options


@options
class Attention:
    """Causal softmax attention with rotary positions, the baseline.

    o = softmax(q kᵀ / √K) v over all earlier steps; q and k rotated in the half-split form, base 10000.
    State: keys and values [B, t, G, K] of all t steps so far, 2 t G K numbers, G = num_kv_heads.
    """

    name: Literal["attention"] = "attention"
    num_heads: int = option(4, "Query heads; divides the width.", ge=1, sweep=[1, 2, 4])
    num_kv_heads: int | None = option(None, "Key and value heads; divides num_heads; as many when left out.", ge=1)
    qk_norm: bool = option(False, "Normalise queries and keys.", sweep=[False, True])
    rotary_fraction: float = option(1.0, "Share of each head's channels that is rotated.", ge=0, le=1)


@options
class LocalAttention:
    """Causal softmax attention over the last `window` steps, with rotary positions.

    As attention, each step seeing itself and the window − 1 steps before it.
    State: the last window − 1 keys and values [B, ≤ window − 1, G, K]. Parallel form: blocks of `window` steps.
    """

    name: Literal["local_attention"] = "local_attention"
    window: int = option(64, "Steps that a step sees, itself included.", ge=1, sweep=[16, 64, 256])
    num_heads: int = option(4, "Query heads; divides the width.", ge=1, sweep=[1, 2, 4])
    num_kv_heads: int | None = option(None, "Key and value heads; divides num_heads; as many when left out.", ge=1)
    qk_norm: bool = option(False, "Normalise queries and keys.", sweep=[False, True])
    rotary_fraction: float = option(1.0, "Share of each head's channels that is rotated; Griffin's is 0.5.", ge=0, le=1)


METHODS = (
    Method(Attention, "workloads.mixers.attention:Attention", "Vaswani et al. 2017; RoFormer, arXiv:2104.09864"),
    Method(LocalAttention, "workloads.mixers.attention:LocalAttention", "Beltagy et al., arXiv:2004.05150, sec. 3.1"),
)
