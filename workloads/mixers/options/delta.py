"""Options of the delta-rule recurrences, which overwrite what a key held before. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options


@options
class DeltaNet:
    """Linear attention with the delta rule.

    S' = S + β k (v − Sᵀ k)ᵀ;  o = K^(−1/2) q S';  β = b_max · σ(W_b x), q and k of length 1, each after convolution and
    SiLU;  y = W_o headwise norm(o). State: S [B, H, K, V] and the convolutions' windows. Parallel form: chunks.
    """

    name: Literal["deltanet"] = "deltanet"
    num_heads: int = option(4, "Heads; divides the width.", ge=1, sweep=[1, 2, 4])
    max_beta: float = option(
        1.0, "b_max: 2 admits negative eigenvalues, and with them parity.", gt=0, le=2, sweep=[1.0, 2.0]
    )
    conv_width: int = option(4, "Width of the causal convolutions with SiLU on q, k, v; 0 for none.", ge=0)


@options
class GatedDeltaNet:
    """Delta rule under a data-dependent scalar decay, with an output gate.

    S° = α S;  S' = S° + β k (v − S°ᵀ k)ᵀ;  o = K^(−1/2) q S';  log α = −e^{A} softplus(W_a x + b);
    β, q, k as in deltanet;  y = W_o (headwise norm(o) ⊙ SiLU(W_g x)).
    Keys are H · head_dim wide, values expand_v times that.
    State: S [B, H, K, V] and the convolutions' windows. Parallel form: chunks.
    """

    name: Literal["gated_deltanet"] = "gated_deltanet"
    num_heads: int = option(4, "Heads.", ge=1, sweep=[1, 2, 4])
    head_dim: int | None = option(
        None, "K, key size of a head; 3/4 of the width over the heads when left out.", ge=1, sweep=[64, 128, 256]
    )
    expand_v: float = option(2.0, "Value size over key size.", gt=0, sweep=[1.0, 2.0])
    max_beta: float = option(
        1.0, "b_max: 2 admits negative eigenvalues, and with them parity.", gt=0, le=2, sweep=[1.0, 2.0]
    )
    conv_width: int = option(4, "Width of the causal convolutions with SiLU on q, k, v; 0 for none.", ge=0)


METHODS = (
    Method(
        DeltaNet, "workloads.mixers.delta:DeltaNet", "Yang et al., arXiv:2406.06484, sec. 3; β > 1: arXiv:2411.12537"
    ),
    Method(GatedDeltaNet, "workloads.mixers.delta:GatedDeltaNet", "Yang et al., arXiv:2412.06464, eq. 10 and sec. 3"),
)
