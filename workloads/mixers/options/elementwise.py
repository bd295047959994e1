"""Options of the element-wise linear recurrences. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options


@options
class RGLRU:
    """Real-gated linear recurrent unit, Hawk's mixer.

    r = σ(W_a x), i = σ(W_x x), log a = −c · softplus(Λ) · r, h' = a ⊙ h + √(1 − a²) ⊙ (i ⊙ x).
    State: h [B, D] and the short convolution's window.
    """

    name: Literal["rg_lru"] = "rg_lru"
    c: float = option(8.0, "Scale of the log decay.", gt=0)
    conv_width: int = option(4, "Width of the causal depthwise convolution before the gates; 0 for none.", ge=0)


METHODS = (Method(RGLRU, "workloads.mixers.elementwise:RGLRU", "Griffin, arXiv:2402.19427, eq. 1-4"),)
