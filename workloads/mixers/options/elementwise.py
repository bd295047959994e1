"""Options of the element-wise linear recurrences h_t = a_t ⊙ h_{t−1} + x_t. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options


@options
class MinGRU:
    """GRU without state in its gates.

    u = conv(x);  z = σ(W_z u), n = g(W_h u), h' = (1 − z) ⊙ h + z ⊙ n;  y = W_o h.
    g is the identity for candidate "linear", and x + ½ (x ≥ 0), σ(x) (x < 0) for "positive", the paper's log-space
    form. W_o is there where expand ≠ 1. State: h [B, E] and the convolution's window, E = expand · D.
    Parallel form: linear scan (the paper's log-space sum loses digits with T).
    """

    name: Literal["mingru"] = "mingru"
    expand: float = option(1.0, "Width of the recurrence over the model's.", gt=0, sweep=[1.0, 1.5, 2.0])
    candidate: Literal["linear", "positive"] = option("positive", "The candidate's non-linearity g.")
    conv_width: int = option(0, "Width of a causal depthwise convolution before the gates; 0 for none.", ge=0)


@options
class MinLSTM:
    """LSTM without state in its gates, and without an output gate.

    u = conv(x);  f = σ(W_f u), i = σ(W_i u), n = g(W_h u), h' = f/(f + i) ⊙ h + i/(f + i) ⊙ n;  y = W_o h.
    g, W_o, state and parallel form as in mingru.
    """

    name: Literal["minlstm"] = "minlstm"
    expand: float = option(1.0, "Width of the recurrence over the model's.", gt=0, sweep=[1.0, 1.5, 2.0])
    candidate: Literal["linear", "positive"] = option("positive", "The candidate's non-linearity g.")
    conv_width: int = option(0, "Width of a causal depthwise convolution before the gates; 0 for none.", ge=0)
    forget_bias: float = option(1.0, "Initial bias of f.", sweep=[0.0, 1.0, 3.0])


@options
class HGRN:
    """Hierarchically gated recurrent network: a forget gate with a lower bound that rises from layer to layer.

    f = γ + (1 − γ) σ(W_f x).  Form "real": i = SiLU(W_i x), h' = f ⊙ h + (1 − f) ⊙ i, y = W_o (norm(h) ⊙ SiLU(W_g x)).
    Form "complex" (the paper's): c = SiLU(W_r x) + i SiLU(W_m x), h' = f e^{iθ} ⊙ h + (1 − f) ⊙ c with a learned θ,
    y = W_o norm(σ(W_g x) ⊙ [Re h, Im h]).
    γ of layer l is the sum over j < l of softmax(Γ)_j, Γ [layers, E] learned and shared by the stack: 0 in the first.
    State: h [B, E], real or complex, and the convolution's window. Parallel form: linear scan.
    θ starts as 10000^(−2j/E), j = 0..E − 1.
    """

    name: Literal["hgrn"] = "hgrn"
    form: Literal["real", "complex"] = option("real", "Real states, or complex ones with a learned rotation.")
    expand: float = option(1.0, "Width of the recurrence over the model's.", gt=0, sweep=[1.0, 2.0])
    lower_bound: bool = option(True, "Bound the forget gate from below by depth.", sweep=[True, False])
    conv_width: int = option(0, "Width of a causal depthwise convolution before the gates; 0 for none.", ge=0)


@options
class GateLoop:
    """Linear recurrence with a data-controlled complex decay, in the author's setting of one channel a head.

    a = σ(W_α x + b) e^{i W_β x};  h' = a ⊙ h + k ⊙ v;  y = W_o (SiLU(W_g x) ⊙ q ⊙ Re h), q, k, v linear in x.
    State: h [B, D] complex. Parallel form: complex linear scan.
    """

    name: Literal["gateloop"] = "gateloop"
    phase: bool = option(True, "Complex decay; false keeps its magnitude only.", sweep=[True, False])
    gate_gradient: float = option(
        1.0, "Share of the gradient that reaches the decay's maps; the author halves it or so.", gt=0, le=1
    )
    keep_bias: float = option(3.0, "Initial bias of the decay's magnitude.", sweep=[1.0, 3.0, 5.0])


@options
class RGLRU:
    """Real-gated linear recurrent unit inside Hawk's recurrent block.

    u = conv(W_z x);  r = σ(W_a u), i = σ(W_i u), log a = −c · softplus(Λ) · r,
    h' = a ⊙ h + √(1 − a²) ⊙ (i ⊙ u);  y = W_o (h ⊙ GELU(W_y x)).
    W_a and W_i are block-diagonal; the first step of a sequence takes its input with weight 1 in place of √(1 − a²).
    At the start e^{−softplus(Λ)} lies between min_decay and max_decay, its square uniformly.
    State: h [B, E] and the convolution's window [B, conv_width − 1, E], E = expand · D.
    Parallel form: linear scan.
    """

    name: Literal["rg_lru"] = "rg_lru"
    c: float = option(8.0, "Scale of the log decay.", gt=0)
    conv_width: int = option(4, "Width of the causal depthwise convolution before the gates; 0 for none.", ge=0)
    num_blocks: int = option(4, "Blocks of the two gates' matrices; divides expand · D.", ge=1, sweep=[1, 4, 8])
    expand: float = option(1.0, "Width of the recurrence over the model's.", gt=0, sweep=[1.0, 4 / 3])
    min_decay: float = option(0.9, "Smallest initial decay at r = 1 and c = 1.", gt=0, lt=1)
    max_decay: float = option(0.999, "Largest initial decay at r = 1 and c = 1.", gt=0, lt=1)


@options
class Griffin:
    """Griffin's mixing of recurrence and local attention in one mixer: Hawk blocks and sliding-window attention.

    The blocks of `pattern` run one after the other, each adding to the sum that the mixer returns; all but the first
    see norm(x + sum so far). Attention is multi-query with rotary positions on half of each head's channels.
    The paper puts an MLP after each block: for that, write the model's mixer as a list,
    [rg_lru, rg_lru, local_attention]. A pattern of one "recurrent" is Hawk's block.
    State: one a block; see rg_lru and local_attention. Parallel form: linear scan and banded attention.
    """

    name: Literal["griffin"] = "griffin"
    pattern: tuple[Literal["recurrent", "attention"], ...] = option(
        ("recurrent", "recurrent", "attention"), "Blocks from first to last.", min_length=1
    )
    window: int = option(64, "Steps that attention sees, itself included; the paper's 1024 at T = 2048.", ge=1)
    num_heads: int = option(4, "Query heads of attention; divides the width.", ge=1)
    num_blocks: int = option(4, "Blocks of the recurrence's gate matrices; divides expand · D.", ge=1)
    expand: float = option(1.0, "Width of the recurrence over the model's.", gt=0, sweep=[1.0, 4 / 3])
    conv_width: int = option(4, "Width of the recurrence's convolution; 0 for none.", ge=0)


@options
class RWKV4:
    """RWKV-4 time mixing; with `spiking`, SpikeGPT's: the output drives leaky integrate-and-fire neurons along time.

    k, v, r from μ x_t + (1 − μ) x_{t−1}, each with its μ;  w = −e^{decay};
    p_t = Σ_{s<t} e^{(t−1−s) w + k_s} v_s + e^{u + k_t} v_t over the same without v;  y = W_o (σ(r) ⊙ p).
    Spiking: V ← V + (y − V)/2, spike where V ≥ 1, then V ← 0; gradient of the spike that of arctan, α = 2, the reset
    taken as constant. Key, receptance and output maps start at 0.
    State: numerator, denominator, their exponent and the last x, each [B, D]; with spikes V [B, D].
    Parallel form: linear scan relative to a running maximum; the spikes are sequential.
    """

    name: Literal["rwkv4"] = "rwkv4"
    spiking: bool = option(False, "Send spikes (0 or 1) in place of y.", sweep=[False, True])


_MIXERS = "workloads.mixers"

METHODS = (
    Method(MinGRU, f"{_MIXERS}.minimal:MinGRU", "Feng et al., arXiv:2410.01201, sec. 3.1 and appendix B"),
    Method(MinLSTM, f"{_MIXERS}.minimal:MinLSTM", "Feng et al., arXiv:2410.01201, sec. 3.2 and appendix B"),
    Method(HGRN, f"{_MIXERS}.hgrn:HGRN", "Qin et al., arXiv:2311.04823, sec. 3"),
    Method(GateLoop, f"{_MIXERS}.gateloop:GateLoop", "Katsch, arXiv:2311.01927, sec. 3"),
    Method(RGLRU, f"{_MIXERS}.rg_lru:RGLRU", "Griffin, arXiv:2402.19427, eq. 1-4 and appendix A"),
    Method(Griffin, f"{_MIXERS}.griffin:Griffin", "De et al., arXiv:2402.19427, sec. 2"),
    Method(RWKV4, f"{_MIXERS}.rwkv4:RWKV4", "Peng et al., arXiv:2305.13048, sec. 3; SpikeGPT, arXiv:2302.13939"),
)
