"""Options of the KAN gate. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options


@options
class GRKAN:
    """KAMoE's gate: a gated residual network of KAN layers, over all experts.

    skip = W_s x; u = KAN(KAN(x)), dropout; v = (W_1 u) ⊙ σ(W_2 u); gate = act(LayerNorm(skip + v)). A KAN layer is
    W elu(x) + Σ_i c_i B_i(x), B cubic B-splines on a fixed grid; inputs beyond the grid get only the base term. grn
    replaces the KAN layers by ELU(Linear) and Linear; linear leaves act(W_s x). The paper's input scaling of each
    expert is left to the expert's first matrix, which absorbs it. The authors' package defaults to sigmoid gates,
    whose sum may drift to E; softmax here.
    """

    name: Literal["grkan"] = "grkan"
    gate: Literal["grkan", "grn", "linear"] = option("grkan", "Gate network.", sweep=["grkan", "grn", "linear"])
    activation: Literal["softmax", "sigmoid"] = option("softmax", "Gate function.", sweep=["softmax", "sigmoid"])
    hidden: int = option(16, "Width of the KAN layers.", ge=1, sweep=[8, 16, 32])
    grid: int = option(5, "Spline intervals.", ge=1, sweep=[3, 5])
    order: int = option(3, "Spline order.", ge=1, le=5)
    reach: float = option(3.0, "The grid covers [−reach, reach].", gt=0)
    dropout: float = option(0.1, "Dropout after the KAN layers.", ge=0, lt=1)


METHODS = (Method(GRKAN, "workloads.routers.kan:GRKAN", "KAMoE, arXiv:2409.15161, sec. 3"),)
