"""Options of the mixture-of-experts feed-forward. Torch-free."""

from __future__ import annotations

from typing import Any, Literal, Self

import pydantic

from workloads.choice import one_of
from workloads.method import Method, option, options
from workloads.routers.options import ROUTERS


@options
class MoE:
    """Mixture of gated-MLP experts behind a router: y_t = Σ_e g[t, e] F_e(x_t) over the kept experts e."""

    name: Literal["moe"] = "moe"
    num_experts: int = option(8, "Experts E.", ge=1, sweep=[4, 8, 16, 32])
    expert_hidden: int | None = option(
        None, "Hidden width of one expert; 8/3 of d_model divided by the router's k, when left out.", ge=1
    )
    router: one_of(ROUTERS) = option({"name": "topk"}, "Which experts see which tokens.")  # type: ignore[valid-type]

    @pydantic.model_validator(mode="after")
    def _k_fits(self) -> Self:
        k: Any = getattr(self.router, "k", 1)
        if k > self.num_experts:
            raise ValueError(f"router.k ({k}) is more than num_experts ({self.num_experts})")
        return self


METHODS = (Method(MoE, "workloads.feedforward.moe:MoE", "Sparsely-gated MoE, arXiv:1701.06538"),)
