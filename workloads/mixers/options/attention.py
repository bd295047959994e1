"""Options of the mixers that are built around softmax attention. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options


@options
class Attention:
    """Causal softmax attention with rotary positions, the baseline.

    o = softmax(q kᵀ / √K) v over all earlier steps; q and k rotated in the half-split form, base 10000.
    State: keys and values [B, t, G, K] of all t steps so far, 2 t G K numbers, G = num_kv_heads,
    and the convolution's window.
    """

    name: Literal["attention"] = "attention"
    num_heads: int = option(4, "Query heads; divides the width.", ge=1, sweep=[1, 2, 4])
    num_kv_heads: int | None = option(None, "Key and value heads; divides num_heads; as many when left out.", ge=1)
    qk_norm: bool = option(False, "Normalise queries and keys.", sweep=[False, True])
    rotary_fraction: float = option(1.0, "Share of each head's channels that is rotated.", ge=0, le=1)
    conv_width: int = option(0, "Width of a causal convolution of the input; 0 for none.", ge=0, sweep=[0, 4])


@options
class LocalAttention:
    """Causal softmax attention over the last `window` steps, with rotary positions.

    As attention, each step seeing itself and the window − 1 steps before it.
    State: the last window − 1 keys and values [B, ≤ window − 1, G, K], and the convolution's window.
    Parallel form: blocks of `window` steps.
    """

    name: Literal["local_attention"] = "local_attention"
    window: int = option(64, "Steps that a step sees, itself included.", ge=1, sweep=[16, 64, 256])
    num_heads: int = option(4, "Query heads; divides the width.", ge=1, sweep=[1, 2, 4])
    num_kv_heads: int | None = option(None, "Key and value heads; divides num_heads; as many when left out.", ge=1)
    qk_norm: bool = option(False, "Normalise queries and keys.", sweep=[False, True])
    rotary_fraction: float = option(1.0, "Share of each head's channels that is rotated; Griffin's is 0.5.", ge=0, le=1)
    conv_width: int = option(0, "Width of a causal convolution of the input; 0 for none.", ge=0, sweep=[0, 4])


@options
class GRCAttention:
    """Attention with a gated recurrent cache (GRC), made causal by segments.

    Within a segment: plain causal attention s. Between segments, with X̄ the first D_m channels of the segment's s,
    averaged down to the cache's length: g_r = σ(W_r [C, X̄]), g_u = σ(W_u [C, X̄]),
    C̃ = LN(GELU(W_c [g_r ⊙ C, X̄])), C' = (1 − g_u) ⊙ C + g_u ⊙ C̃.
    A segment reads the cache that earlier segments left: o = σ(λ) attention(x → C) + (1 − σ(λ)) s, one λ a head,
    the cache's part filling the first half of each head's channels. D_m = D / 2.
    State: the cache [B, slots, D/2] and the inputs of the open segment [B, < segment, D].
    Parallel within a segment; the cache is sequential over segments.
    """

    name: Literal["grc_attention"] = "grc_attention"
    num_heads: int = option(4, "Heads; divides the width, with an even size of each.", ge=1, sweep=[1, 2, 4])
    slots: int = option(16, "Length of the cache.", ge=1, sweep=[16, 64, 128])
    segment: int = option(64, "Steps between two updates of the cache.", ge=1, sweep=[64, 128, 256])
    detach_every: int = option(0, "Segments after which the gradient through the cache is cut; 0 for never.", ge=0)
    read_bias: float = option(-1.0, "Initial λ.")


@options
class SeqBoat:
    """Sparse modular activation: a gated attention unit that runs at chosen steps only, over a moving average.

    m = SiLU(EMA(x)), EMA of N decaying averages a channel;  [u, r0] = W m, p = softmax(u / τ) over (off, on);
    the steps that choose "on" are packed together; there z, r, v = SiLU(W m), q, k = z ⊙ γ + β,
    a = relu²(q kᵀ / window + b) v (or softmax) over the last `window` chosen steps, h = W_h (r ⊙ a);
    y = SiLU(x + r0 + p_on ⊙ h), h = 0 where off. Gradient reaches the choice through p alone.
    State: averages [B, D, N], and key, value and validity of the last window − 1 chosen steps.
    Parallel form: convolution by FFT, banded attention over the packed steps.
    """

    name: Literal["seqboat"] = "seqboat"
    ema_size: int = option(16, "N, averages a channel.", ge=1, sweep=[4, 16])
    key_size: int = option(16, "Width of z, q and k.", ge=1, sweep=[16, 64, 128])
    expand: float = option(1.0, "Width of r and v over the model's.", gt=0, sweep=[1.0, 2.0])
    window: int = option(64, "Chosen steps that a chosen step sees, itself included.", ge=1, sweep=[64, 256])
    attention: Literal["relu2", "softmax"] = option("relu2", "Attention function.")
    temperature: float = option(1.0, "Initial τ over √D.", gt=0, sweep=[0.3, 0.5, 1.0])


@options
class Liger:
    """A softmax-attention layer turned into gated linear attention without new parameters, half of it kept local.

    q, k, v, W_o as in attention;  log α = log σ(k) / τ;  q' = softmax(q), k' = softmax(k) over the head's channels;
    S' = diag(α) S + k' vᵀ, g = q' S';  s = rotary softmax attention over the last `window` steps, from q and k;
    y = W_o ½ (g + s). With rank > 0, low-rank updates (LoRA, B A · alpha / rank, B from 0) on the maps of q, k, v.
    A sweep over `liger` that starts from the best of one over `attention` takes its weights over; with
    `training.trainable: ["*.down", "*.up"]` the updates alone are trained (sweeps/liger_conversion.yaml).
    `workloads.mixers.liger.convert` does the same to a model at hand.
    State: S [B, H, K, V] and the last window − 1 keys and values. Parallel form: chunked.
    """

    name: Literal["liger"] = "liger"
    num_heads: int = option(4, "Query heads; divides the width.", ge=1, sweep=[1, 2, 4])
    num_kv_heads: int | None = option(None, "Key and value heads; divides num_heads; as many when left out.", ge=1)
    window: int = option(64, "Steps that the local half sees, itself included.", ge=1, sweep=[16, 64])
    temperature: float = option(16.0, "τ, divides the log of the gate.", gt=0, sweep=[1.0, 4.0, 16.0])
    local_share: float = option(0.5, "Weight of the local half; 1 is local attention alone.", ge=0, le=1)
    rank: int = option(8, "Rank of the low-rank updates; 0 for none.", ge=0, sweep=[4, 8, 16])
    alpha: float = option(16.0, "Scale of the low-rank updates, over the rank.", gt=0)


METHODS = (
    Method(Attention, "workloads.mixers.attention:Attention", "Vaswani et al. 2017; RoFormer, arXiv:2104.09864"),
    Method(LocalAttention, "workloads.mixers.attention:LocalAttention", "Beltagy et al., arXiv:2004.05150, sec. 3.1"),
    Method(GRCAttention, "workloads.mixers.grc:GRCAttention", "Cached Transformers, arXiv:2312.12742, sec. 3"),
    Method(SeqBoat, "workloads.mixers.seqboat:SeqBoat", "Ren et al., arXiv:2306.11197, sec. 3"),
    Method(Liger, "workloads.mixers.liger:Liger", "Liger, arXiv:2503.01496, sec. 3"),
)
