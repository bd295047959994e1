"""Options of the dense feed-forward layers. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.activations.options import ACTIVATIONS
from workloads.choice import one_of
from workloads.method import Method, option, options


@options
class Dense:
    """Dense MLP: y = W_down (φ(W_gate x) ⊙ W_up x), or y = W_down φ(W_up x) where the activation is not gated."""

    name: Literal["dense"] = "dense"
    hidden: int | None = option(
        None,
        "Hidden width H. When left out, 8/3 of d_model for a gated activation and 4 times d_model for a plain one "
        "(equal parameters), rounded to a multiple of 8.",
        ge=1,
    )
    activation: one_of(ACTIVATIONS) = option(  # type: ignore[valid-type]
        {"name": "swiglu"}, "The function between the two matrices.", sweep=["swiglu", "geglu", "gelu"]
    )


@options
class DenseMatched:
    """Dense baseline of a mixture of `num_experts` experts, `k` of them active, each of hidden width h.

    match = active: H = k h, the same FLOPs a token. match = total: H = E h, the same parameters.
    """

    name: Literal["dense_matched"] = "dense_matched"
    num_experts: int = option(8, "Experts E of the mixture that is matched.", ge=1)
    k: int = option(2, "Its experts a token.", ge=1)
    expert_hidden: int | None = option(None, "Hidden width h of its experts; as in `moe` when left out.", ge=1)
    match: Literal["active", "total"] = option("total", "What is equal to the mixture's.", sweep=["active", "total"])
    activation: one_of(ACTIVATIONS) = option(  # type: ignore[valid-type]
        {"name": "swiglu"}, "The function between the two matrices."
    )


METHODS = (
    Method(Dense, "workloads.feedforward.dense:Dense", "GLU variants, arXiv:2002.05202, eq. 5-6"),
    Method(DenseMatched, "workloads.feedforward.dense:DenseMatched", "Switch Transformers, arXiv:2101.03961, sec. 3"),
)
