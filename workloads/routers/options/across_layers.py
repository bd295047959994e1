"""Options of the routers that reach across depth. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options
from workloads.routers.options.common import SoftmaxTopK


@options
class RMoE(SoftmaxTopK):
    """A GRU shared by all layers runs across depth, so that a layer's routing sees the earlier layers'.

    r_i = A_i x_i, h_i = GRU(r_i, h_{i−1}) a token, h_0 = 0, z_i = B_i h_i, then softmax top-k. A_i [q, D] and
    B_i [E, q] are each layer's own. The state lives for one forward pass and carries nothing over time.
    """

    name: Literal["rmoe"] = "rmoe"
    width: int = option(128, "Width q of the state.", ge=1, sweep=[32, 64, 128, 256])
    cell: Literal["gru", "rnn", "none"] = option(
        "gru", "Recurrence; none leaves a two-layer gate.", sweep=["gru", "rnn", "none"]
    )
    pass_state: bool = option(True, "Give the state to the next layer.", sweep=[True, False])
    detach: bool = option(False, "Stop the gradient between layers.", sweep=[False, True])


@options
class PreGated(SoftmaxTopK):
    """Mixture layer n chooses the experts of layer n + level, so that weights can be fetched while n computes.

    z for layer n + level is W_n x_n; choice and combine weights come from it (that the weights do too is our reading).
    The first `level` layers have a gate of their own besides; the last ones have none. level 0 is `topk`.
    """

    name: Literal["pre_gated"] = "pre_gated"
    level: int = option(1, "How many mixture layers ahead.", ge=0, le=3, sweep=[0, 1, 2, 3])


@options
class SharedExpertsAcrossLayers(SoftmaxTopK):
    """Groups of mixture layers use one set of experts; each layer keeps its own router (and the block its own norm).

    y = Σ_e g^(l)_e F^(G(l))_e(norm^(l)(x)). The gradient of a shared expert is the sum over its layers.
    """

    name: Literal["shared_experts_across_layers"] = "shared_experts_across_layers"
    group_size: int = option(2, "Mixture layers in a row that share; 0 for all of them.", ge=0, sweep=[1, 2, 0])
    individual_router: bool = option(True, "Each layer has its own router.", sweep=[True, False])


METHODS = (
    Method(RMoE, "workloads.routers.across_layers:RMoE", "RMoE, arXiv:2408.06793, sec. 3"),
    Method(PreGated, "workloads.routers.across_layers:PreGated", "Pre-gated MoE, arXiv:2308.12066, sec. 4"),
    Method(
        SharedExpertsAcrossLayers,
        "workloads.routers.across_layers:SharedExpertsAcrossLayers",
        "Sparsely-gated experts shared across layers, arXiv:2209.08326",
    ),
)
