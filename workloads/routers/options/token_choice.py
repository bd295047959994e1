"""Options of the routers in which each token chooses its experts, without capacity. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options
from workloads.routers.options.common import SoftmaxTopK


@options
class TopK(SoftmaxTopK):
    """Softmax top-k: p = softmax(W x), the k largest kept; g = p, or p over the sum of the kept.

    Renormalised gates equal a softmax over the k kept logits and give only these a task gradient. x [N, D], W [E, D];
    N·k assignments. The balance loss counts all k choices, so that its minimum is k.
    """

    name: Literal["topk"] = "topk"


@options
class NoisyTopK:
    """Noisy top-k: H = W_g x + ε ⊙ (softplus(W_n x) + 0.01), ε ~ N(0, 1) in training; g = softmax over the k largest.

    Losses: CV² of the importance Σ_t g and of the load Σ_t P, P[t, e] = Φ(((W_g x)_e − the k-th largest of H without
    e) / std_e), the chance that e stays chosen when its own noise is drawn again. x [N, D], W_g and W_n [E, D], both
    0 at the start; N·k assignments. At k = 1, where the paper's weight would be the constant 1, g is softmax(H).
    """

    name: Literal["noisy_topk"] = "noisy_topk"
    k: int = option(2, "Experts a token; all of them where there are fewer.", ge=1, sweep=[2, 4, 8])
    importance_weight: float = option(0.1, "Weight of the importance loss.", ge=0, sweep=[0.01, 0.03, 0.1])
    load_weight: float = option(0.1, "Weight of the load loss; it needs k < E.", ge=0, sweep=[0.01, 0.03, 0.1])


@options
class AdaptiveGating:
    """One expert, or two where the gate is undecided: top-2 if p1 − p2 <= τ, else top-1; p = softmax(W x).

    The balance loss counts the tokens that took one expert: E Σ_e f_e p̄_e with f among these and p̄ over all.
    The text does not settle the weights: probability keeps p (every token teaches the gate); pairs renormalises where
    two are taken; renormalized always, so that single tokens weigh 1 and teach it nothing. N to 2N assignments.
    """

    name: Literal["adaptive_gating"] = "adaptive_gating"
    threshold: float = option(0.1, "Largest gap τ at which the second expert joins.", sweep=[0.05, 0.1, 0.2, 0.4])
    criterion: Literal["difference", "ratio"] = option(
        "difference",
        "Compare p1 − p2 with τ, or 1 − p2/p1, which does not shrink with E.",
        sweep=["difference", "ratio"],
    )
    weights: Literal["probability", "pairs", "renormalized"] = option("probability", "Combine weights.")
    balance_weight: float = option(0.01, "Weight of the balance loss.", ge=0, sweep=[0.001, 0.01, 0.1])


@options
class GWMoE(SoftmaxTopK):
    """Global workspace: in training, tokens whose gate is too flat go to all experts with weights p; else top-k.

    A token is broadcast where −Σ p ln p >= threshold · ln E and it is among the first `slots` such tokens of its
    sequence. Evaluation is plain top-k. Trained from scratch every gate is flat at first: `start` delays it.
    """

    name: Literal["gw_moe"] = "gw_moe"
    threshold: float = option(0.8, "Entropy over ln E from which a token is broadcast.", ge=0, sweep=[0.7, 0.8, 0.9])
    slots: int = option(8, "Tokens broadcast a sequence at most; 0 for no limit.", ge=0, sweep=[8, 32, 0])
    start: float = option(0.0, "Share of the training after which broadcasting begins.", ge=0, le=1, sweep=[0.0, 0.5])


@options
class SparseMixer:
    """Sampled top-1 (or top-k) whose gradient estimates the true one of the discrete choice by ODE quadrature.

    Logits far below the largest are masked; p = softmax of the rest; in training the expert D ~ p. The multiplier is
    c·p_D forward and s·p_D backward: c = 1 where D is the argmax, else
    v1 (mid-point): c = 1 or 1/2 with probability 1/2 each, s = 2, and the output is scaled by a learned ω [D];
    v2 (Heun): c = 1 with probability 1/4 else 1/3, s = 1; v2_full: logits halved, 5/8 instead of 1/4, s = 2.
    Evaluation takes the argmax, c = 1. v1 masks (z* − z)/max(|z|, |z*|) > 2r, v2 z* − z > r (|z| + |z*|).
    k > 1 repeats the draw without replacement. c scales the multiplier, so the experts' gradient is scaled by it too.
    """

    name: Literal["sparsemixer"] = "sparsemixer"
    variant: Literal["v1", "v2", "v2_full"] = option("v1", "Estimator.", sweep=["v1", "v2", "v2_full"])
    k: int = option(1, "Experts a token; all of them where there are fewer.", ge=1, sweep=[1, 2])
    r: float = option(
        0.1,
        "Width of the mask; at 0 only the argmax survives and the gate learns nothing.",
        ge=0,
        sweep=[0.01, 0.05, 0.1],
    )
    scale_output: bool = option(True, "Learn the output scale ω (v1 only).", sweep=[True, False])
    balance_weight: float = option(0.01, "Weight of the balance loss.", ge=0, sweep=[0.001, 0.01, 0.1])


def _method(options_class: type, implementation: str, source: str) -> Method:
    return Method(options_class, f"workloads.routers.{implementation}", source)


METHODS = (
    _method(TopK, "token_choice:TopK", "Mixtral, arXiv:2401.04088, sec. 2.1"),
    _method(NoisyTopK, "noisy:NoisyTopK", "Sparsely-gated MoE, arXiv:1701.06538, sec. 2.1, app. A"),
    _method(AdaptiveGating, "token_choice:AdaptiveGating", "Adaptive gating in MoE, arXiv:2310.07188, sec. 3"),
    _method(GWMoE, "token_choice:GWMoE", "GW-MoE, arXiv:2406.12375"),
    _method(
        SparseMixer, "sparsemixer:SparseMixer", "SparseMixer, arXiv:2310.00811, alg. 1; GRIN, arXiv:2409.12136, app. A"
    ),
)
