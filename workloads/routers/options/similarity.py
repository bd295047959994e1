"""Options of the routers that compare: cosine similarity to experts, attention over past tokens. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options
from workloads.routers.options.common import Group, SoftmaxTopK


@options
class Cosine:
    """Logits are similarities of a projected token to expert embeddings, over a learned temperature.

    gmoe: z = normalize(U x + b) · normalize(V_e) / τ, so |z| <= 1/τ; 1/τ = exp(learned), clipped at 100; Gaussian
    noise of deviation noise/E in training; loss the mean of importance (of the gates of all experts) and load.
    xmoe: z = U x · normalize(V_e) / τ, U without bias, V orthogonal with rows of length 1.5 after every step; loss the
    balance of top-k. g = the k largest of softmax(z), renormalised for k > 1.
    """

    name: Literal["cosine"] = "cosine"
    variant: Literal["gmoe", "xmoe"] = option("gmoe", "Which paper's form.", sweep=["gmoe", "xmoe"])
    k: int = option(1, "Experts a token; all of them where there are fewer.", ge=1, sweep=[1, 2])
    width: int | None = option(
        None, "Width of the comparison; 256 for gmoe, 16 for xmoe when left out.", ge=1, sweep=[8, 16, 32]
    )
    temperature: float = option(0.5, "Initial τ.", gt=0, sweep=[0.07, 0.5])
    noise: float = option(1.0, "Noise times E (gmoe).", ge=0, sweep=[0.0, 1.0])
    capacity_factor: float = option(1.5, "Capacity factor; 0 drops nothing.", ge=0, sweep=[0.0, 1.5])
    eval_capacity_factor: float = option(1.5, "Capacity factor in evaluation; 0 drops nothing.", ge=0)
    min_capacity: int = option(1, "Least room of an expert in a group.", ge=1)
    group: Group = option("sequence", "Tokens that share the room.")
    balance_weight: float = option(0.01, "Weight of the loss.", ge=0, sweep=[0.001, 0.01, 0.1])


@options
class AttentionWeighted(SoftmaxTopK):
    """The gate attends over the last `window` hidden states: z_t = Σ_j a_tj W x_j, then softmax top-k.

    a_tj = softmax over t − window < j <= t of (Q x_t)·(K x_j)/√width. In training the same gate is computed a second
    time with past states masked at random, and an InfoNCE loss pulls the two together against other tokens. The paper
    gates a ranking model over a user's behaviours and gives no formula in its abstract; this is its form for
    sequences. At window 1 it is `topk`. Causal; a call sees the positions that it is given.
    """

    name: Literal["aw_moe"] = "aw_moe"
    window: int = option(8, "Hidden states that the gate attends to, the current one included.", ge=1, sweep=[1, 8, 32])
    width: int = option(16, "Width of queries and keys.", ge=1)
    contrast_weight: float = option(0.05, "Weight of the InfoNCE loss.", ge=0, sweep=[0.0, 0.05, 0.5])
    mask: float = option(0.3, "Share of past states masked in the second view.", ge=0, le=1)
    contrast_temperature: float = option(0.1, "Temperature of the InfoNCE loss.", gt=0)
    contrast_tokens: int = option(128, "Tokens, evenly spaced, that are contrasted.", ge=2)


METHODS = (
    Method(Cosine, "workloads.routers.cosine:Cosine", "GMoE, arXiv:2206.04046; XMoE, arXiv:2204.09179, sec. 3.2"),
    Method(AttentionWeighted, "workloads.routers.attentive:AttentionWeighted", "AW-MoE, arXiv:2306.05011 (abstract)"),
)
