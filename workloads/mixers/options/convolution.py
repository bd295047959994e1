"""Options of the mixers that convolve: gated convolutions, and state spaces run as long convolutions. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options


@options
class GCNN:
    """Gated convolution.

    h = (x * W + b) ⊙ σ(x * V + c), causal, with weight norm. State: the last kernel − 1 inputs [B, k − 1, D].
    """

    name: Literal["gcnn"] = "gcnn"
    kernel: int = option(4, "Width of the convolution in steps.", ge=1, sweep=[3, 4, 5])


@options
class PGN:
    """Parallel gated network: a window of the past in place of a recurrence, path length 1.

    H_t = W_h [x_{t−W}; ...; x_{t−1}] + b;  G = σ(W_g [x_t, H_t]);  n = tanh(W_n [x_t, H_t]);
    y_t = G ⊙ H_t + (1 − G) ⊙ n. State: the last W inputs [B, W, D].
    """

    name: Literal["pgn"] = "pgn"
    window: int = option(16, "W, steps of the past that a step reads.", ge=1, sweep=[4, 16, 64])


@options
class TPGN:
    """Temporal PGN: a PGN along the long-term axis and a convolution along the short-term one, for periodic series.

    The paper folds a series into rows of one period and columns of one phase. Here both axes end at the present step:
    long: PGN over x_{t−P}, x_{t−2P}, ..., x_{t−(R−1)P}, the same phase of earlier periods;
    short: s_t = W_r [x_{t−P+1}; ...; x_t], the last period, then W_c [s_{t−(R−1)P}; ...; s_t] over the periods;
    y = W_o [long, short]. State: the last R · P − 1 inputs [B, RP − 1, D].
    """

    name: Literal["tpgn"] = "tpgn"
    period: int = option(24, "P, steps of a period.", ge=1, sweep=[8, 24])
    periods: int = option(7, "R, periods that are seen.", ge=2, sweep=[2, 4, 7])


@options
class GSS:
    """Gated state space: a diagonal state-space layer in a narrow width, gated in a wide one.

    u = GELU(W_u x), 4 D wide;  v = GELU(W_v x), D/4 wide;  s' = e^{Λ} s + v a channel and pole,
    z = Re Σ_n C_n ((e^{Λ_n} − 1) / Λ_n) s'_n + d ⊙ v;  y = W_o (W_y z ⊙ u).
    Λ = −e^{a} + i e^{b}, shared by the channels; a, b, Re C and Im C start from N(0, 1).
    State: s [B, D/4, N] complex. Parallel form: convolution by FFT.
    """

    name: Literal["gss"] = "gss"
    state_size: int = option(512, "N, poles.", ge=1, sweep=[64, 128, 512])
    narrow: float = option(0.25, "Width of the state space over the model's.", gt=0, sweep=[0.125, 0.25, 0.5])
    wide: float = option(4.0, "Width of the gate over the model's.", gt=0)


METHODS = (
    Method(GCNN, "workloads.mixers.convolution:GCNN", "Dauphin et al., arXiv:1612.08083, eq. 1"),
    Method(PGN, "workloads.mixers.convolution:PGN", "PGN, arXiv:2409.17703, sec. 3"),
    Method(TPGN, "workloads.mixers.convolution:TPGN", "PGN, arXiv:2409.17703, sec. 3"),
    Method(GSS, "workloads.mixers.gss:GSS", "Mehta et al., arXiv:2206.13947, sec. 3; DSS, arXiv:2203.14343"),
)
