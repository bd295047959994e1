"""Options of the tasks over formal languages. Torch-free."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import pydantic

from workloads.method import Method, option, options
from workloads.tasks.options.generated import Generated


@options
class Dyck(Generated):
    """Next symbol of a Dyck-(k, m) string; score `val_close_accuracy`, closing brackets of the right kind.

    k kinds of brackets, nested at most m deep. At depth 0 open; at depth m close; otherwise open with probability
    1/2; the kind is uniform; stop at depth 0 once min_length is reached, reject over max_length. Ids: 0 padding, 1..k
    opening, k+1..2k closing. Every next symbol is a target; the score looks at those that close, and asks whether the
    most likely of the k closing brackets is the right one. `val_close_accuracy_near` is over brackets opened at most
    8 places before, `val_close_accuracy_far` over the others.

    Generated: no source data, no licence. Split by content. Trivial baseline: `chance`, 1/k.
    """

    metric: ClassVar[str] = "val_close_accuracy"
    metrics: ClassVar[dict[str, str]] = {
        "val_accuracy": "maximize",
        "val_close_accuracy_near": "maximize",
        "val_close_accuracy_far": "maximize",
    }
    name: Literal["dyck"] = "dyck"
    kinds: int = option(8, "k, kinds of brackets.", ge=1, sweep=[2, 8, 32])
    depth: int = option(5, "m, deepest nesting.", ge=1, sweep=[3, 5, 10])
    min_length: int = option(20, "Fewest symbols.", ge=2)
    max_length: int = option(200, "Most symbols.", ge=2)

    @pydantic.model_validator(mode="after")
    def _room(self) -> Self:
        if self.max_length < self.min_length + 2 * self.depth:
            raise ValueError(
                f"expected max_length >= min_length + 2*depth = {self.min_length + 2 * self.depth}, "
                f"got {self.max_length}; shorter ranges reject most strings"
            )
        return self


@options
class ListOps(Generated):
    """Value of a nested list expression; score `val_accuracy`, one class of ten a sequence.

    A tree of operators MIN, MAX, MED (median, rounded down) and SM (sum modulo 10) over digits: a node is an operator
    with probability 0.25 while its depth is under 10 (the root's is 1), with 2..10 arguments, both uniform, and a
    uniform digit otherwise. Expressions with min_length < length < max_length are kept; the length counts digits,
    operators and closing brackets. Ids: 0 padding, 1..10 the digits, 11..14 the operators, 15 the closing bracket;
    the answer is scored at the last closing bracket. Published lengths 500..2000.

    Generated: no source data, no licence. Split by content. Trivial baseline: `majority`, the most frequent answer of
    the training split, about 0.16.
    """

    metrics: ClassVar[dict[str, str]] = {}
    name: Literal["listops"] = "listops"
    min_length: int = option(500, "Every expression is longer.", ge=1)
    max_length: int = option(2000, "Every expression is shorter.", ge=6)
    max_depth: int = option(10, "Depth at which a node must be a digit.", ge=2)
    max_arguments: int = option(10, "Most arguments of an operator.", ge=2)

    @pydantic.model_validator(mode="after")
    def _room(self) -> Self:
        if self.max_length < self.min_length + 3:
            raise ValueError(f"expected max_length >= min_length + 3 = {self.min_length + 3}, got {self.max_length}")
        return self


METHODS = (
    Method(Dyck, "workloads.tasks.dyck:Dyck", "RNNs can generate bounded hierarchical languages, arXiv:2010.07515"),
    Method(ListOps, "workloads.tasks.listops:ListOps", "Long Range Arena, arXiv:2011.04006; ListOps, arXiv:1804.06028"),
)
