"""Options of the state-tracking tasks. Torch-free."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import pydantic

from workloads.method import Method, option, options
from workloads.tasks.options.generated import Generated


@options
class Parity(Generated):
    """Parity of a bit string; score `val_accuracy` over lengths beyond those of training.

    Ids: 0 end and padding, 1 and 2 the bits 0 and 1. n uniform bits, then the end mark, where the answer (1 or 2) is
    scored; with `answer = each`, the running parity is scored at every bit too, in training. n is uniform in
    min_length..max_length in training and in max_length+1..test_length in validation, whose accuracy is also given
    in four equal ranges of n: `val_accuracy_q1` (shortest) to `val_accuracy_q4`; `val_accuracy_trained` is that at
    trained lengths.

    Generated: no source data, no licence. Split by content. Trivial baseline: `chance`, 0.5.
    """

    metrics: ClassVar[dict[str, str]] = {
        "val_accuracy": "maximize",
        "val_accuracy_trained": "maximize",
        **{f"val_accuracy_q{quarter}": "maximize" for quarter in (1, 2, 3, 4)},
    }
    name: Literal["parity"] = "parity"
    min_length: int = option(3, "Fewest bits in training.", ge=1)
    max_length: int = option(40, "Most bits in training.", ge=1)
    test_length: int = option(256, "Most bits in validation.", ge=2)
    answer: Literal["end", "each"] = option("end", "Where training scores the parity.", sweep=["end", "each"])

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min_length <= self.max_length < self.test_length:
            raise ValueError(
                f"expected min_length <= max_length < test_length, got {self.min_length}, {self.max_length}, "
                f"{self.test_length}"
            )
        return self


@options
class A5Word(Generated):
    """Word problem of the alternating group A5 (60 elements); score `val_accuracy` over all positions.

    T uniform group elements; the target at each position is the product of the elements so far. T is
    `training.sequence_length` (published: each of 2..20). `val_accuracy_2x` and `val_last_accuracy_2x` are taken at
    twice the length. A5 is not solvable: the problem is NC1-complete.

    Generated: no source data, no licence. Split by content. Trivial baselines: `chance`, 1/|G|; `last_element`, the
    answer when only the current element is looked at: right at the first position, chance after.
    """

    metrics: ClassVar[dict[str, str]] = {
        "val_accuracy": "maximize",
        "val_sequence_accuracy": "maximize",
        "val_accuracy_2x": "maximize",
        "val_last_accuracy_2x": "maximize",
    }
    name: Literal["a5_word"] = "a5_word"


@options
class S5Word(A5Word):
    """Word problem of the symmetric group S5 (120 elements); score `val_accuracy` over all positions.

    Rule, metrics, split and baselines as for `a5_word`. Generated: no source data, no licence.
    """

    name: Literal["s5_word"] = "s5_word"  # type: ignore[assignment]


_WORD = "Illusion of State, arXiv:2404.08819, sec. 5"
METHODS = (
    Method(Parity, "workloads.tasks.state_tracking:Parity", "xLSTM, arXiv:2405.04517, sec. 4.1"),
    Method(A5Word, "workloads.tasks.state_tracking:GroupWord", _WORD),
    Method(S5Word, "workloads.tasks.state_tracking:GroupWord", _WORD),
)
