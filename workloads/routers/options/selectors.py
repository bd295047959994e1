"""Options of the differentiable selectors: binary codes and trees. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options


@options
class DSelectK:
    """k single-expert selectors, each a smooth binary code of an expert's number, mixed by a softmax.

    S the smooth step (cubic on (−γ/2, γ/2)), m = ceil(log2 E); z_i = A_i x in R^m, r(z)_e = Π_j (S(z_j) if bit j of e
    else 1 − S(z_j)), α = softmax(B x), q = Σ_i α_i r(z_i): at most k non-zeros once every |z_j| >= γ/2. Losses:
    entropy_weight · mean Σ_i H(r_i), and where E is no power of two code_weight · mean Σ_i 1/(1e-6 + Σ_{e<E} r_e),
    which keeps mass on existing experts. Dense at first; work falls as codes become binary. A saturated bit gets no
    gradient.
    """

    name: Literal["dselect_k"] = "dselect_k"
    k: int = option(2, "Selectors.", ge=1, sweep=[1, 2, 4])
    gamma: float = option(1.0, "Width γ of the smooth step.", gt=0, sweep=[0.01, 0.1, 1.0, 5.0, 10.0])
    entropy_weight: float = option(
        1e-6, "Weight λ of the selectors' entropy.", ge=0, sweep=[1e-6, 1e-3, 0.1, 1.0, 10.0]
    )
    code_weight: float = option(1.0, "Weight ζ that keeps codes on existing experts.", ge=0)
    static: bool = option(False, "One gate for all tokens instead of one a token.", sweep=[False, True])


@options
class Comet:
    """k soft decision trees choose experts; a learned permutation of the experts mends a bad initial placement.

    Node n of a tree goes left with S(w_n·x + b_n); leaf e has path probability v_e and logit a_e·x + c_e.
    s = a + ln(v + 1e-8), −∞ where v = 0; softmax over all k·E leaves together, summed over trees. Gate g R with R
    doubly stochastic by Sinkhorn, sharpened during the first `search` of the training (log-scale temperature 1e-3 to
    1e-7, 20 to 150 iterations), then rounded by an exact assignment and frozen. Losses: entropy_weight · entropy of the
    path probabilities; search_weight · entropy of R's rows and columns; code_weight as in `dselect_k`.
    """

    name: Literal["comet"] = "comet"
    k: int = option(2, "Trees.", ge=1, sweep=[2, 3, 4])
    gamma: float = option(1.0, "Width γ of the smooth step.", gt=0, sweep=[0.01, 0.1, 1.0, 5.0, 10.0])
    entropy_weight: float = option(0.05, "Weight λ of the path entropy.", ge=0, sweep=[0.05, 0.1, 0.5, 1.0, 5.0, 10.0])
    code_weight: float = option(1.0, "Weight that keeps paths on existing leaves.", ge=0)
    search: float = option(
        0.1, "Share of the training with permutation search; 0 for none.", ge=0, le=1, sweep=[0.0, 0.01, 0.1]
    )
    search_weight: float = option(1e-4, "Weight of the permutation's entropy.", ge=0)


METHODS = (
    Method(DSelectK, "workloads.routers.dselect:DSelectK", "DSelect-k, arXiv:2106.03760, sec. 3"),
    Method(Comet, "workloads.routers.comet:Comet", "COMET, KDD 2023, doi:10.1145/3580305.3599278"),
)
