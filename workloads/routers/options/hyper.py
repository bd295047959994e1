"""Options of HyperMoE. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options
from workloads.routers.options.token_choice import NoisyTopK


@options
class HyperMoE(NoisyTopK):
    """Noisy top-k plus an adapter that a hypernetwork makes from the experts a token did *not* choose.

    s = MLP(Σ_{e not in S} K_e), K [E, embedding]; a hypernetwork on (s, layer embedding) emits D [a, D], U [D, a] and
    biases; y = Σ g F + U ReLU(D x + b_D) + b_U. The adapter depends on the set S alone, so each distinct set's is made
    once and its tokens are grouped. The heads start near 0 and with them the adapter. At k = 1 the gate is softmax(H).
    """

    name: Literal["hypermoe"] = "hypermoe"  # type: ignore[assignment]
    k: int = option(1, "Experts a token; all of them where there are fewer.", ge=1, sweep=[1, 2])
    adapter: int = option(64, "Width a of the adapter.", ge=1, sweep=[16, 64])
    embedding: int = option(128, "Width of the expert embeddings.", ge=1, sweep=[32, 128])
    hidden: int = option(128, "Hidden width of the selection MLP and the hypernetwork.", ge=1)
    layer_embedding: int = option(10, "Width of a layer's embedding.", ge=1)
    share_hypernetwork: bool = option(True, "One hypernetwork for all layers.", sweep=[True, False])
    importance_weight: float = option(0.01, "Weight of the importance loss.", ge=0, sweep=[0.001, 0.01, 0.1])
    load_weight: float = option(0.01, "Weight of the load loss; it needs k < E.", ge=0, sweep=[0.001, 0.01, 0.1])


METHODS = (Method(HyperMoE, "workloads.routers.hyper:HyperMoE", "HyperMoE, arXiv:2402.12656, sec. 3"),)
