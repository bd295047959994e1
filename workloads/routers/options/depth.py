"""Options of the routers that decide how much computation a token gets. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options
from workloads.routers.options.common import SoftmaxTopK


@options
class MixtureOfDepths(SoftmaxTopK):
    """The C = ceil(capacity · T) tokens of a sequence with the largest r = w·x are served; the rest skip the layer.

    y_t = r_t f(x_t) for served tokens, 0 for the others. With E = 1, f is that one expert; with more, served tokens
    go on to a softmax top-k among them (staged mixture of depths and experts). Choosing the largest looks ahead, so
    evaluation decides token by token: predictor = mlp is a small network on the detached x, trained by binary
    cross-entropy on whether the token was chosen; aux trains σ(r + b) itself so, b a scalar that only this reads. A
    token is served where it exceeds ½.
    The paper routes attention and feed-forward together; in this slot the feed-forward alone is routed.
    """

    name: Literal["mixture_of_depths"] = "mixture_of_depths"
    capacity: float = option(0.125, "Share of a sequence that is served.", gt=0, le=1, sweep=[0.125, 0.25, 0.5])
    weight: Literal["raw", "sigmoid"] = option("raw", "Multiply by r, or by its sigmoid.", sweep=["raw", "sigmoid"])
    predictor: Literal["mlp", "aux"] = option("mlp", "What decides in evaluation.", sweep=["mlp", "aux"])
    predictor_weight: float = option(0.01, "Weight of its cross-entropy.", ge=0, sweep=[0.01, 0.1])
    k: int = option(1, "Experts a served token.", ge=1, sweep=[1, 2])


@options
class ACM:
    """Adaptive computation module: the experts are learners whose outputs add up; a gate decides how many run.

    n(t) in {0..E} by a two-layer gate of E + 1 logits; y_t = Σ_{i < n(t)} F_i(x_t). Training draws n by
    straight-through Gumbel softmax and runs all learners, so that each choice has a gradient; evaluation takes the
    argmax and runs n of them. Losses: |mean n/E − target|; ln(E + 1) − H(mean choice); 1 − mean |difference of the
    sequences' mean n/E|. Their weights are chosen here, the paper's are not known. `python -m workloads.distil`
    fits the learners to a trained dense model first, as the paper does.
    """

    name: Literal["acm"] = "acm"
    target: float = option(0.5, "Wanted share of the learners.", ge=0, le=1, sweep=[0.25, 0.5, 0.75])
    budget_weight: float = option(0.1, "Weight of the distance to the target.", ge=0, sweep=[0.01, 0.1, 1.0])
    entropy_weight: float = option(0.01, "Weight of the entropy term.", ge=0)
    diversity_weight: float = option(0.01, "Weight of the diversity term.", ge=0)
    gate_hidden: int = option(32, "Hidden width of the gate.", ge=1)
    temperature: float = option(1.0, "Temperature of the Gumbel softmax.", gt=0)
    learn_temperature: bool = option(False, "Learn the temperature.")


@options
class SMA:
    """Sparse modular activation: a latent switch a token and expert; active where its argmax says so.

    Two logits u, p = softmax(u/τ), active iff p_1 > p_0, weight p_1; τ = exp(learned) from init_scale · √D. Sparsity
    emerges without a loss. Causal. A switch that is off has no gradient: watch `active_frac`. (SeqBoat's own module is
    gated attention on the compacted sequence; the mixer `seqboat` is that. Here the modules are the experts.)
    """

    name: Literal["sma"] = "sma"
    init_scale: float = option(0.3, "Initial τ over √D.", gt=0, sweep=[0.3, 1.0])


METHODS = (
    Method(MixtureOfDepths, "workloads.routers.depth:MixtureOfDepths", "Mixture-of-Depths, arXiv:2404.02258, sec. 3"),
    Method(ACM, "workloads.routers.depth:ACM", "Adaptive Computation Modules, arXiv:2312.10193, sec. 3"),
    Method(SMA, "workloads.routers.depth:SMA", "Sparse Modular Activation (SeqBoat), arXiv:2306.11197, sec. 3"),
)
