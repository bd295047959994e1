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

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class Ledger:
    """What operations cost.

    flops: forward work by operation. calls: by operation. backward: FLOPs of the backward pass, twice the forward work
    of each call that has one (a gradient for either side of each product). spans: autograd's numbers, from and below,
    of what each such call left for the backward pass. running: an operation is at work, forward.
    """

    flops: dict[str, int] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    backward: int = 0
    spans: list[tuple[int, int]] = field(default_factory=list)
    running: bool = False

    @property
    def inside(self) -> bool:
        """Whether an operation is at work on this thread, forward or backward: its parts do not count again."""
        node = torch._C._current_autograd_node()
        return self.running or (node is not None and any(a <= node._sequence_nr() < b for a, b in self.spans))


_open: list[Ledger] = []


@contextmanager
def counting() -> Iterator[Ledger]:
    """Note the work of every operation called inside, on this thread and any other."""
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
            ledger, name, work = _open[-1], operation.__name__, flops(*args, **kwargs)
            ledger.flops[name] = ledger.flops.get(name, 0) + work
            ledger.calls[name] += 1
            ledger.running, first = True, torch._C._autograd._get_sequence_nr()
            try:
                return operation(*args, **kwargs)
            finally:
                ledger.running, end = False, torch._C._autograd._get_sequence_nr()
                if end > first:
                    ledger.spans.append((first, end))
                    ledger.backward += 2 * work

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
