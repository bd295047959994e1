"""Options of NLLB's regularised routers. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options
from workloads.routers.options.common import SoftmaxTopK


@options
class EOM(SoftmaxTopK):
    """Expert output masking: in training each (token, choice) is zeroed with probability p before the combine.

    No rescaling in training; evaluation multiplies by 1 − p. Whole vectors are masked, as in the authors' code.
    """

    name: Literal["eom"] = "eom"
    p: float = option(0.1, "Chance of masking one expert's output.", ge=0, lt=1, sweep=[0.0, 0.1, 0.2, 0.3])


@options
class FOM(SoftmaxTopK):
    """Final output masking: in training a token's combined output is zeroed with probability p; it keeps its residual.

    No rescaling in training; evaluation multiplies by 1 − p.
    """

    name: Literal["fom"] = "fom"
    p: float = option(0.1, "Chance of masking a token's output.", ge=0, lt=1, sweep=[0.0, 0.1, 0.2, 0.3])


@options
class CMR(SoftmaxTopK):
    """Conditional MoE routing: y = (1 − G) FFN_shared(x) + G MoE(x), G = σ(w·x + b) a token.

    The shared feed-forward is expert 0; top-k runs over the others. Loss: weight · |mean G − budget|. In training G is
    set to 0 with probability `drop`, without rescaling, so that it stays in [0, 1]. Costs one expert more a token.
    """

    name: Literal["cmr"] = "cmr"
    budget: float = option(0.8, "Wanted mean of G.", ge=0, le=1, sweep=[0.5, 0.8, 0.95])
    budget_weight: float = option(0.1, "Weight of the budget loss.", ge=0, sweep=[0.01, 0.1])
    drop: float = option(0.2, "Chance that a token's G is dropped.", ge=0, lt=1, sweep=[0.0, 0.1, 0.2])


METHODS = (
    Method(EOM, "workloads.routers.regularised:EOM", "NLLB, arXiv:2207.04672, sec. 6.2"),
    Method(FOM, "workloads.routers.regularised:FOM", "NLLB, arXiv:2207.04672, sec. 6.2"),
    Method(CMR, "workloads.routers.regularised:CMR", "NLLB, arXiv:2207.04672, sec. 6.2; arXiv:2212.07571"),
)
