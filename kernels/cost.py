"""Floating-point work of the operations, counted in their plain form, whichever form runs.

The forms differ in how much they compute (a chunked recurrence trades a longer sum for matrix products), and a count
that followed them would make a model's budget depend on the machine that it runs on. Multiply and add count as two.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class Ledger:
    """Forward work by operation: FLOPs and calls. `inside`: an operation is running, whose parts do not count again."""

    flops: dict[str, int] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    inside: bool = False


_open: list[Ledger] = []


@contextmanager
def counting() -> Iterator[Ledger]:
    """Note the forward work of every operation called inside, on this thread and any other."""
    ledger = Ledger()
    _open.append(ledger)
    try:
        yield ledger
    finally:
        _open.remove(ledger)


def counted(flops: Callable[..., int]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have an operation note its work; `flops` takes the operation's own arguments."""

    def decorate(operation: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(operation)
        def noting(*args: P.args, **kwargs: P.kwargs) -> R:
            if not _open or _open[-1].inside:
                return operation(*args, **kwargs)
            ledger, name = _open[-1], operation.__name__
            ledger.flops[name] = ledger.flops.get(name, 0) + flops(*args, **kwargs)
            ledger.calls[name] += 1
            ledger.inside = True
            try:
                return operation(*args, **kwargs)
            finally:
                ledger.inside = False

        return noting

    return decorate


def linear_scan(a: Tensor, x: Tensor, *_: Any, **__: Any) -> int:
    """A product and a sum an element; a complex pair is 8."""
    return (8 if a.is_complex() or x.is_complex() else 2) * x.numel()


def chunk_gla(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    """Each step: decay of the state, k vᵀ added to it, q S."""
    return 5 * k.numel() * v.shape[-1]


def gated_delta_rule(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    """Each step: decay of the state, Sᵀ k, the difference and its scale, k (…)ᵀ added, q S."""
    return 7 * k.numel() * v.shape[-1] + 2 * v.numel()


def fused_rnn(cell: str, x: Tensor, w_ih: Tensor, w_hh: Tensor, *_: Any, **__: Any) -> int:
    """The products with both matrices at every step; `w_hh` [.., X, D] may have heads in front."""
    return 2 * x.shape[0] * x.shape[1] * (w_ih.numel() + w_hh.numel())


def grouped_mm(x: Tensor, w: Tensor, *_: Any, **__: Any) -> int:
    """One product a row."""
    return 2 * x.numel() * w.shape[-1]


def fused_glu_mlp(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor, *_: Any, **__: Any) -> int:
    """Three products a row."""
    inner, hidden, outer = x.shape[-1], w_up.shape[-1], w_down.shape[-1]
    return 2 * x.shape[0] * hidden * (2 * inner + outer)


def pointwise(*_: Any, **__: Any) -> int:
    """Routing and moving rows: no product of matrices and no recurrence, so it counts as none."""
    return 0
