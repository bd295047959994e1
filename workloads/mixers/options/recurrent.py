"""Options of the non-linear recurrences. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options

HIDDEN = "H; the model's width, without an output map, when left out."


@options
class RNNTanh:
    """Elman's recurrent network, the ungated baseline and a full state tracker.

    h' = tanh(W x + b + U h + c). State: h [B, H]. No parallel form.
    W starts Xavier-uniform, U orthogonal.
    """

    name: Literal["rnn_tanh"] = "rnn_tanh"
    hidden_size: int | None = option(None, HIDDEN, ge=1)


@options
class LSTM:
    """Long short-term memory with a forget gate.

    i, f, z, o = W x + b + U h + c;  c' = σ(f) ⊙ c + σ(i) ⊙ tanh(z);  h' = σ(o) ⊙ tanh(c').
    State: (h, c), each [B, H]. No parallel form. W starts Xavier-uniform, U orthogonal gate by gate.
    """

    name: Literal["lstm"] = "lstm"
    hidden_size: int | None = option(None, HIDDEN, ge=1)
    forget_bias: float = option(1.0, "Initial bias of the forget gate.", sweep=[0.0, 1.0, 3.0])


@options
class GRU:
    """Gated recurrent unit.

    r = σ(W_r x + U_r h), z = σ(W_z x + U_z h), h' = (1 − z) ⊙ n + z ⊙ h, biases left out, with
    n = tanh(W_n x + r ⊙ (U_n h)) for reset "after" (torch.nn's and cuDNN's form) and
    n = tanh(W_n x + U_n (r ⊙ h)) for reset "before" (the paper's form, with Chung's z turned round).
    State: h [B, H]. No parallel form. W starts Xavier-uniform, U orthogonal gate by gate.
    """

    name: Literal["gru"] = "gru"
    hidden_size: int | None = option(None, HIDDEN, ge=1)
    reset: Literal["after", "before"] = option("after", "Reset gate after or before the recurrent product.")
    keep_bias: float = option(1.0, "Initial bias of the gate z, which keeps.", sweep=[0.0, 1.0, 3.0, 5.0])


@options
class DeerGRU:
    """GRU evaluated in parallel over time by Newton's method (DEER).

    Solves h_t = f(h_{t−1}, x_t) for all t at once: h ← J h_{t−1} + (f − J h_{t−1}) with J = ∂f/∂h, a linear
    recurrence a pass; the gradient is one reversed recurrence with Jᵀ, not an unrolled solver. Where the residual
    does not fall below the tolerance the plain loop takes over. Work O(T H³) a pass with the full Jacobian.
    State: h [B, H]; f is torch.nn's GRU cell.
    """

    name: Literal["deer_gru"] = "deer_gru"
    hidden_size: int | None = option(None, HIDDEN, ge=1)
    jacobian: Literal["full", "diagonal"] = option("full", "Newton, or quasi-Newton with the diagonal (quasi-DEER).")
    max_iterations: int = option(100, "Passes before the loop takes over.", ge=1)
    tolerance: float | None = option(
        None, "Largest residual |h − f(h)| at the end; 1e-6 in float32 and 1e-12 in float64 when left out.", gt=0
    )
    keep_bias: float = option(1.0, "Initial bias of the gate z, which keeps.", sweep=[0.0, 1.0, 3.0])


@options
class DeerLSTM:
    """LSTM evaluated in parallel over time by Newton's method (DEER).

    As deer_gru, with the state s = (h, c) and a Jacobian [2H, 2H]: work O(T H³), eight times that of the GRU.
    State: (h, c), each [B, H]; f is torch.nn's LSTM cell.
    """

    name: Literal["deer_lstm"] = "deer_lstm"
    hidden_size: int | None = option(None, HIDDEN, ge=1)
    jacobian: Literal["full", "diagonal"] = option("full", "Newton, or quasi-Newton with the diagonal (quasi-DEER).")
    max_iterations: int = option(100, "Passes before the loop takes over.", ge=1)
    tolerance: float | None = option(
        None, "Largest residual |s − f(s)| at the end; 1e-6 in float32 and 1e-12 in float64 when left out.", gt=0
    )
    forget_bias: float = option(1.0, "Initial bias of the forget gate.", sweep=[0.0, 1.0, 3.0])


@options
class MGU:
    """Minimal gated unit: one gate, which writes where it is high (the paper calls it "forget").

    f = σ(W_f x + U_f h + b_f);  n = tanh(W_n x + U_n (f ⊙ h) + b_n);  h' = (1 − f) ⊙ h + f ⊙ n.
    State: h [B, H]. No parallel form.
    """

    name: Literal["mgu"] = "mgu"
    hidden_size: int | None = option(None, HIDDEN, ge=1)
    write_bias: float = option(-1.0, "Initial bias of f; low keeps longer.", sweep=[-3.0, -1.0, 0.0])


@options
class IndRNN:
    """Independently recurrent network: each unit sees its own past only.

    h' = act(W x + u ⊙ h + b), |u| held at or below `max_recurrence`. State: h [B, H].
    Parallel (linear scan) for act "identity"; for "relu" and "tanh" no parallel form. The paper's batch norm looks
    at later steps and is left to the shell's norm. u ~ U(0, 1); in the stack's last such layer U(1 − ε, 1), ε = 0.1.
    """

    name: Literal["indrnn"] = "indrnn"
    hidden_size: int | None = option(None, HIDDEN, ge=1)
    activation: Literal["relu", "tanh", "identity"] = option("relu", "Non-linearity of the recurrence.")
    max_recurrence: float = option(
        1.0, "Bound on |u|; γ^(1/T) for sequences of T steps, γ 2 to 10, keeps gradients below γ.", gt=0
    )


@options
class LowRankGRU:
    """GRU whose recurrent matrices are U = B A (+ diag(d)): the state's size is free of the parameter count.

    u = σ(W_u x + U_u h + b_u), r = σ(W_r x + U_r h + b_r), m = tanh(W_m x + U_m (r ⊙ h) + b_m),
    h' = (1 − u) ⊙ m + u ⊙ h;  A [rank, H], B [H, rank]. State: h [B, H], learned start. No parallel form.
    """

    name: Literal["low_rank_gru"] = "low_rank_gru"
    hidden_size: int | None = option(None, HIDDEN, ge=1, sweep=[128, 512, 1024])
    rank: int = option(4, "Rank of the recurrent matrices.", ge=1, sweep=[1, 4, 16, 24, 64])
    diagonal: bool = option(False, "Add a diagonal to each recurrent matrix.", sweep=[False, True])
    tied: bool = option(False, "The gates share A.")
    keep_bias: float = option(1.0, "Initial bias of u, which keeps; 5 for sequences of 784 steps.", sweep=[1.0, 5.0])


@options
class LowRankLSTM:
    """LSTM whose recurrent matrices are U = B A (+ diag(d)).

    i, f, z, o = W x + U h + b;  c' = σ(f) ⊙ c + σ(i) ⊙ tanh(z);  h' = σ(o) ⊙ tanh(c').
    State: (h, c), each [B, H], learned start. No parallel form.
    """

    name: Literal["low_rank_lstm"] = "low_rank_lstm"
    hidden_size: int | None = option(None, HIDDEN, ge=1, sweep=[128, 512, 1024])
    rank: int = option(4, "Rank of the recurrent matrices.", ge=1, sweep=[1, 4, 16, 24, 64])
    diagonal: bool = option(False, "Add a diagonal to each recurrent matrix.", sweep=[False, True])
    tied: bool = option(False, "The gates share A.")
    forget_bias: float = option(1.0, "Initial bias of the forget gate.", sweep=[1.0, 3.0, 5.0])


@options
class SLSTM:
    """xLSTM's scalar LSTM: exponential input gate, normaliser, log-max stabiliser, block-diagonal recurrence.

    i~, f~ from the convolved input, z~, o~ from the input, each + R h + b, head by head;
    m' = max(log σ(f~) + m, i~);  i = e^{i~ − m'}, f = e^{log σ(f~) + m − m'};
    c' = f c + i tanh(z~);  n' = f n + i;  h' = σ(o~) c' / n';  y = headwise norm(h').
    State: (h, c, n, m), each [B, D], and the convolution's window. No parallel form.
    """

    name: Literal["slstm"] = "slstm"
    num_heads: int = option(4, "Blocks of R; divides the width.", ge=1, sweep=[1, 2, 4, 8])
    conv_width: int = option(4, "Width of the causal convolution before i and f; 0 for none.", ge=0)
    recurrence: Literal["zeros", "uniform"] = option("zeros", "R starts at 0, or U(±1/√D).", sweep=["zeros", "uniform"])


METHODS = (
    Method(RNNTanh, "workloads.mixers.recurrent:RNNTanh", "Elman 1990; as in Chung et al., arXiv:1412.3555, sec. 2"),
    Method(LSTM, "workloads.mixers.recurrent:LSTM", "Hochreiter & Schmidhuber 1997; arXiv:1412.3555, sec. 3.1"),
    Method(GRU, "workloads.mixers.recurrent:GRU", "Cho et al., arXiv:1406.1078; arXiv:1412.3555, sec. 3.2"),
    Method(DeerGRU, "workloads.mixers.deer:DeerGRU", "DEER, arXiv:2309.12252, sec. 3; quasi-DEER, arXiv:2407.19115"),
    Method(DeerLSTM, "workloads.mixers.deer:DeerLSTM", "DEER, arXiv:2309.12252, sec. 3; quasi-DEER, arXiv:2407.19115"),
    Method(MGU, "workloads.mixers.cells:MGU", "Zhou et al., arXiv:1603.09420, eq. 6-8"),
    Method(IndRNN, "workloads.mixers.cells:IndRNN", "Li et al., arXiv:1803.04831, eq. 1 and sec. 4"),
    Method(LowRankGRU, "workloads.mixers.low_rank:LowRankGRU", "Barone, arXiv:1603.03116, sec. 3"),
    Method(LowRankLSTM, "workloads.mixers.low_rank:LowRankLSTM", "Barone, arXiv:1603.03116, sec. 3"),
    Method(SLSTM, "workloads.mixers.slstm:SLSTM", "xLSTM, arXiv:2405.04517, eq. 8-17"),
)
