"""Options of the routers that assign tokens otherwise than by each token's own choice. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options
from workloads.routers.options.common import Group


@options
class ExpertChoice:
    """Each expert takes its K = ceil(c T / E) best tokens: perfect balance, a varying number of experts a token.

    P = softmax_e(W x); the K largest of every column are chosen; y = Σ P[t, e] F_e(x), not renormalised. No loss.
    The choice looks ahead, so evaluation uses it only with inference = tokens (encoders, classification). With
    inference = threshold a token goes to e where P[t, e] reaches the running mean of e's K-th largest value, which is
    causal; the number of tokens then varies.
    """

    name: Literal["expert_choice"] = "expert_choice"
    capacity_factor: float = option(2.0, "Experts a token on average, c.", gt=0, sweep=[1.0, 2.0, 4.0])
    group: Group = option("batch", "Tokens that an expert chooses from.", sweep=["batch", "sequence"])
    inference: Literal["threshold", "tokens"] = option("threshold", "How evaluation chooses.")
    momentum: float = option(0.99, "Decay of the running thresholds.", ge=0, lt=1)


@options
class Hash:
    """A fixed map from token id to expert; no gate, weight 1, no loss.

    key = id (unigram), or the pair of previous and current id (bigram); expert = table[key mod buckets]. One byte may
    hold a fifth of a text, and no unigram table can balance below E times the largest share, which is reported as
    `hash_bound`. A balanced table starts at random, counts keys during the first `counting` of the training, and is
    then packed once, heaviest key first, into the least loaded expert. Where the task has no ids, the key is the sign
    pattern of 8 fixed random projections of x.
    """

    name: Literal["hash"] = "hash"
    key: Literal["unigram", "bigram"] = option("unigram", "What is hashed.", sweep=["unigram", "bigram"])
    table: Literal["random", "balanced"] = option("random", "How keys are dealt out.", sweep=["random", "balanced"])
    vocab_size: int = option(256, "Number of ids; larger ids wrap around.", ge=1)
    counting: float = option(0.1, "Share of the training that counts keys for a balanced table.", ge=0, le=1)
    seed: int = option(0, "Seed of the table.", ge=0)


@options
class Base:
    """Balanced linear assignment: in training every expert gets at most ceil(N/E) tokens, at the greatest total score.

    s = x Cᵀ with centroids C [E, D] (orthogonal, gain 0.1); maximise Σ s[t, a_t] exactly; y = σ(x · c_a) F_a(x). The
    scores that decide are detached: centroids learn through σ. Evaluation takes the argmax. No loss. The assignment
    sees the whole batch.
    """

    name: Literal["base"] = "base"
    group: Group = option("batch", "Tokens that are assigned together.", sweep=["batch", "sequence"])


METHODS = (
    Method(ExpertChoice, "workloads.routers.assigned:ExpertChoice", "Expert choice, arXiv:2202.09368, sec. 3.2"),
    Method(Hash, "workloads.routers.hashed:Hash", "Hash layers, arXiv:2106.04426, sec. 3"),
    Method(Base, "workloads.routers.assigned:Base", "BASE layers, arXiv:2103.16716, sec. 3, eq. 1-3"),
)
