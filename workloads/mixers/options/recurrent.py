"""Options of the non-linear recurrences. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, options


@options
class GRU:
    """Gated recurrent unit in torch.nn's form (reset gate after the recurrent product).

    r = σ(W_r x + U_r h), z = σ(W_z x + U_z h), n = tanh(W_n x + r ⊙ (U_n h)), h' = (1 − z) ⊙ n + z ⊙ h.
    State [B, D].
    """

    name: Literal["gru"] = "gru"


METHODS = (Method(GRU, "workloads.mixers.recurrent:GRU", "Cho et al. 2014, arXiv:1406.1078"),)
