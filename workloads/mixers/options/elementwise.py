"""Options of the element-wise linear recurrences h_t = a_t ⊙ h_{t−1} + x_t. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options


@options
class RGLRU:
    """Real-gated linear recurrent unit inside Hawk's recurrent block.

    u = conv(W_z x);  r = σ(W_a u), i = σ(W_i u), log a = −c · softplus(Λ) · r,
    h' = a ⊙ h + √(1 − a²) ⊙ (i ⊙ u);  y = W_o (h ⊙ GELU(W_y x)).
    W_a and W_i are block-diagonal; the first step of a sequence takes its input with weight 1 in place of √(1 − a²).
    State: h [B, E] and the convolution's window [B, conv_width − 1, E], E = expand · D.
    Parallel form: linear scan.
    """

    name: Literal["rg_lru"] = "rg_lru"
    c: float = option(8.0, "Scale of the log decay.", gt=0)
    conv_width: int = option(4, "Width of the causal depthwise convolution before the gates; 0 for none.", ge=0)
    num_blocks: int = option(4, "Blocks of the two gates' matrices; divides expand · D.", ge=1, sweep=[1, 4, 8])
    expand: float = option(1.0, "Width of the recurrence over the model's.", gt=0, sweep=[1.0, 4 / 3])
    min_decay: float = option(
        0.9, "Smallest decay at gate 1 and c = 1 at the start; its square is uniform.", gt=0, lt=1
    )
    max_decay: float = option(0.999, "Largest decay at gate 1 and c = 1 at the start.", gt=0, lt=1)


METHODS = (Method(RGLRU, "workloads.mixers.rg_lru:RGLRU", "Griffin, arXiv:2402.19427, eq. 1-4 and appendix A"),)
