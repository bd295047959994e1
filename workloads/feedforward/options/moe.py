"""Options of the mixture-of-experts feed-forward. Torch-free."""

from __future__ import annotations

from typing import Any, Literal, Self

import pydantic

from workloads.activations.options import ACTIVATIONS
from workloads.choice import one_of
from workloads.method import Method, option, options
from workloads.routers.options import ROUTERS


@options
class MoE:
    """Mixture of MLP experts behind a router: y_t = Σ_e g[t, e] F_e(x_t) over the kept experts e.

    Dropless: the work is proportional to the kept assignments. A token that keeps none gets 0 and passes through the
    block's residual.
    """

    name: Literal["moe"] = "moe"
    num_experts: int = option(8, "Experts E.", ge=1, sweep=[4, 8, 16, 32])
    expert_hidden: int | None = option(
        None,
        "Hidden width of one expert. When left out, the dense layer's width divided by the router's experts a token, "
        "so that the active parameters equal those of a dense layer.",
        ge=1,
    )
    init_scale: float = option(
        1 / 3,
        "Variance of the experts' initial weights times their fan-in (truncated normal); 1/3 is torch's own, "
        "0.1 the Switch Transformer's.",
        gt=0,
        sweep=[0.1, 1 / 3, 1.0],
    )
    activation: one_of(ACTIVATIONS) = option(  # type: ignore[valid-type]
        {"name": "swiglu"}, "The function inside each expert.", sweep=["swiglu", "geglu", "gelu"]
    )
    router: one_of(ROUTERS) = option({"name": "topk"}, "Which experts see which tokens.")  # type: ignore[valid-type]

    @pydantic.model_validator(mode="after")
    def _k_fits(self) -> Self:
        k: Any = getattr(self.router, "k", 1)
        # One expert is the dense layer, whatever k: a sweep over num_experts may begin there.
        if k > self.num_experts > 1:
            raise ValueError(f"router.k ({k}) is more than num_experts ({self.num_experts}); lower k or add experts")
        return self


METHODS = (Method(MoE, "workloads.feedforward.moe:MoE", "Sparsely-gated MoE, arXiv:1701.06538"),)
