"""Options of the recurrent networks with a fixed Legendre memory. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options


@options
class HippoLegS:
    """Gated RNN with HiPPO's scaled-Legendre memory, which holds a polynomial fit of the whole history.

    u = W_u [x, h];  k-th step: m' = (I − A/2k)⁻¹ ((I + A/2k) m + B u / k), m = (u, 0, ...) after the first;
    A_nj = −√(2n+1) √(2j+1) for n > j, −(n+1) for n = j, 0 above;  B_n = √(2n+1);
    h' = (1 − g) ⊙ h + g ⊙ tanh(W_h [x, m']), g = σ(W_g [x, m']).
    State: h [B, H], m [B, M, N], count of steps [B]. No parallel form, because h feeds the memory.
    """

    name: Literal["hippo_legs"] = "hippo_legs"
    hidden_size: int | None = option(None, "H; the model's width, without an output map, when left out.", ge=1)
    memory_size: int = option(64, "N, coefficients a signal.", ge=1, sweep=[16, 64, 128])
    signals: int = option(1, "M, signals that are remembered.", ge=1, sweep=[1, 2, 4])


@options
class LMU:
    """Legendre memory unit: a gated RNN over a memory of the last θ steps.

    u = W_u [x, h];  m' = Ā m + B̄ u with Ā, B̄ the zero-order hold, step 1/θ, of A_ij = (2i+1) (−1 if i < j else
    (−1)^(i−j+1)), B_i = (2i+1) (−1)^i;  h' = (1 − g) ⊙ h + g ⊙ tanh(W_h [x, m']), g = σ(W_g [x, m']).
    The gate is that of HiPPO's gated RNN; the first LMU had a plain tanh. State: h [B, H], m [B, M, N].
    No parallel form, because h feeds the memory.
    """

    name: Literal["lmu"] = "lmu"
    hidden_size: int | None = option(None, "H; the model's width, without an output map, when left out.", ge=1)
    memory_size: int = option(64, "N, coefficients a signal.", ge=1, sweep=[16, 64, 128])
    signals: int = option(1, "M, signals that are remembered.", ge=1, sweep=[1, 2, 4])
    theta: float = option(128.0, "Length of the window in steps; the sequence's, for whole-sequence tasks.", gt=0)


METHODS = (
    Method(HippoLegS, "workloads.mixers.memory:HippoLegS", "HiPPO, arXiv:2008.07669, sec. 2.3 and appendices D, E"),
    Method(LMU, "workloads.mixers.memory:LMU", "Voelker et al., NeurIPS 2019, eq. 1-4; gates of arXiv:2008.07669"),
)
