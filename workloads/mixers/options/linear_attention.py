"""Options of the recurrences with a matrix state S' = A S + k vᵀ and a diagonal or scalar A. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options

HEADS = "Heads; divides the widths of keys and values."
CONV = "Width of a causal convolution on the maps of the input; 0 for none."


@options
class RetNet:
    """Multi-scale retention: a fixed decay a head.

    S' = γ_h S + k vᵀ, γ_h = 1 − 2^(−5−h), h = 0..H − 1;  o = K^(−1/2) q S', q and k rotated by their position;
    y = W_o (headwise norm(o) ⊙ SiLU(W_g x)). Keys D wide, values expand_v · D.
    State: S [B, H, K, V], the position [B] and the convolution's window. Parallel form: chunks.
    """

    name: Literal["retnet"] = "retnet"
    num_heads: int = option(4, HEADS, ge=1, sweep=[2, 4, 8])
    expand_v: float = option(2.0, "Width of the values over the model's.", gt=0, sweep=[1.0, 2.0])
    rotary: bool = option(True, "Rotate q and k by their position.")
    conv_width: int = option(0, "Width of a causal convolution of the input; 0 for none.", ge=0, sweep=[0, 4])


@options
class GLA:
    """Gated linear attention: a data-dependent decay for each key channel.

    α = σ(x W_1 W_2 + b)^(1/τ);  S' = diag(α) S + k vᵀ;  o = K^(−1/2) q S';
    y = W_o (headwise norm(o) ⊙ SiLU(W_g x)). Keys expand_k · D wide, values expand_v · D.
    State: S [B, H, K, V] and the convolution's window. Parallel form: chunks.
    """

    name: Literal["gla"] = "gla"
    num_heads: int = option(4, HEADS, ge=1, sweep=[1, 2, 4, 8])
    expand_k: float = option(0.5, "Width of the keys over the model's.", gt=0, sweep=[0.5, 1.0])
    expand_v: float = option(1.0, "Width of the values over the model's.", gt=0)
    gate_rank: int = option(16, "Rank of the gate's map.", ge=1)
    temperature: float = option(16.0, "τ, divides the log of the gate.", gt=0, sweep=[1.0, 4.0, 8.0, 16.0])
    conv_width: int = option(0, CONV, ge=0, sweep=[0, 4])


@options
class HGRN2:
    """HGRN with its state expanded by an outer product; the forget gate doubles as the key.

    f = γ + (1 − γ) σ(W_f x), γ by depth as in hgrn;  S' = diag(f) S + (1 − f) iᵀ, i = W_i x;
    o = q S', q = SiLU(W_q x);  y = W_o norm(o).
    State: S [B, H, K, K], K = expand_ratio, H = D / K, and the convolution's window. Parallel form: chunks.
    """

    name: Literal["hgrn2"] = "hgrn2"
    expand_ratio: int | None = option(
        None, "K, size of a head; divides the width; min(128, D) when left out.", ge=1, sweep=[16, 32, 64, 128]
    )
    lower_bound: bool = option(True, "Bound the forget gate from below by depth.", sweep=[True, False])
    conv_width: int = option(0, CONV, ge=0, sweep=[0, 4])


@options
class GSA:
    """Gated slot attention: m memory slots that are forgotten by a gate, written by its complement, read by softmax.

    f = σ(W_f x)^(1/τ), s = 1 − f;  K̃' = K̃ diag(f) + k sᵀ;  p = softmax(scale · q K̃');  Ṽ' = diag(f) Ṽ + s vᵀ;
    o = p Ṽ', q, k, v = SiLU of linear maps;  y = W_o norm(SiLU(o)).
    State: K̃ [B, H, K, m], Ṽ [B, H, m, V] and the convolution's window. Parallel form: chunks, twice.
    """

    name: Literal["gsa"] = "gsa"
    num_heads: int = option(4, HEADS, ge=1, sweep=[1, 2, 4])
    num_slots: int = option(64, "m, slots a head.", ge=1, sweep=[16, 32, 64, 128])
    temperature: float = option(8.0, "τ, divides the log of the gate.", gt=0, sweep=[4.0, 8.0, 16.0])
    scale: float = option(1.0, "Factor of the slots' logits.", gt=0)
    conv_width: int = option(0, CONV, ge=0, sweep=[0, 4])


@options
class RFA:
    """Random feature attention: linear attention that approximates softmax, with a gate a token or a sentence.

    x̂ = x / |x|;  φ(x) = P^(−1/2) [sin(W x̂), cos(W x̂)], W Gaussian [P, K], drawn anew from a pool of `pool` matrices at
    each training step;  S' = g S + w φ(k) vᵀ, z' = g z + w φ(k);  o = φ(q) S' / max(φ(q) z', 0.1);  y = W_o o.
    gate "none": g = w = 1. "token": g = σ(W_g x), w = 1 − g. "sentence": a sentence ends after every
    `sentence_length` steps; there g = σ(W_g x), once that step has been read, else g = 1; w = 1 − g of the sentence
    before, 1 in the first.
    The mixer sees no token ids, so sentences are of equal length. Features "positive":
    φ(x) = P^(−1/2) exp(W x̂ − ½).
    State: S and z as [B, H, features, V + 1], position and the last gates [B, ...]. Parallel form: chunks.
    """

    name: Literal["rfa"] = "rfa"
    num_heads: int = option(4, HEADS, ge=1, sweep=[1, 2, 4])
    num_features: int = option(64, "P, random directions a head.", ge=1, sweep=[32, 64, 128])
    features: Literal["trigonometric", "positive"] = option("trigonometric", "Random features.")
    gate: Literal["none", "token", "sentence"] = option(
        "sentence", "What forgets.", sweep=["none", "token", "sentence"]
    )
    sentence_length: int = option(32, "Steps of a sentence.", ge=1, sweep=[16, 32, 64])
    pool: int = option(1, "Feature matrices to draw from while training; 1 keeps one.", ge=1)


@options
class Mamba2:
    """Selective state space in Mamba-2's form: one data-dependent decay a head.

    z, x', B, C, Δ from one map; conv and SiLU on x', B, C;  Δ = softplus(Δ + b), S' = e^{−Δ A_h} S + Δ B x'ᵀ;
    o = C S' + D_h x';  y = W_o norm(o ⊙ SiLU(z)). E = expand · D, heads of head_dim channels; B and C shared by all.
    State: S [B, H, N, P] and the convolution's window. Parallel form: chunks.
    """

    name: Literal["mamba2"] = "mamba2"
    state_size: int = option(64, "N, size of B and C.", ge=1, sweep=[16, 64, 128])
    head_dim: int | None = option(
        None, "P, channels a head; divides expand · D; min(64, expand · D) when left out.", ge=1, sweep=[32, 64]
    )
    expand: float = option(2.0, "Inner width over the model's.", gt=0)
    conv_width: int = option(4, "Width of the causal convolution; 0 for none.", ge=0)
    dt_min: float = option(1e-3, "Smallest initial Δ.", gt=0)
    dt_max: float = option(0.1, "Largest initial Δ.", gt=0)


_MIXERS = "workloads.mixers"

METHODS = (
    Method(RetNet, f"{_MIXERS}.retnet:RetNet", "Sun et al., arXiv:2307.08621, eq. 5-8"),
    Method(GLA, f"{_MIXERS}.gla:GLA", "Yang et al., arXiv:2312.06635, sec. 3 and 4"),
    Method(HGRN2, f"{_MIXERS}.gla:HGRN2", "Qin et al., arXiv:2404.07904, sec. 3"),
    Method(GSA, f"{_MIXERS}.gsa:GSA", "Zhang et al., arXiv:2409.07146, sec. 3"),
    Method(
        RFA, f"{_MIXERS}.rfa:RFA", "Peng et al., arXiv:2103.02143, sec. 3; sentential gate, Wu et al., arXiv:2210.08431"
    ),
    Method(Mamba2, f"{_MIXERS}.mamba2:Mamba2", "Dao & Gu, arXiv:2405.21060, sec. 6 and 7"),
)
