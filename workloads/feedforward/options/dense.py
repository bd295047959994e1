"""Options of the dense feed-forward layers. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options


@options
class Dense:
    """Gated MLP: y = W_down (φ(W_gate x) ⊙ W_up x)."""

    name: Literal["dense"] = "dense"
    hidden: int | None = option(None, "Hidden width; 8/3 of d_model, rounded to a multiple of 8, when left out.", ge=1)


METHODS = (Method(Dense, "workloads.feedforward.dense:Dense", "GLU variants, arXiv:2002.05202"),)
