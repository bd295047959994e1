"""Options of the recall tasks. Torch-free."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import pydantic

from workloads.method import Method, option, options
from workloads.tasks.options.generated import Generated


@options
class MQAR(Generated):
    """Multi-query associative recall; score `val_accuracy`, the share of queries answered right.

    A sequence of T tokens opens with K pairs key, value; keys from 1..V/2−1, values from V/2..V−1, each drawn without
    repetition. The remaining T−2K tokens are 0 but for each key once more, at offset 2g, the g drawn without
    repetition with p(g) ∝ (g+1)^(a−1). The target at the second place of a key is its value; nothing else is scored.
    T is `training.sequence_length`; 4K ≤ T, T even. The paper's grid: (T, K) = (64, 4), (128, 8), (256, 16).

    Generated: no source data, no licence. Split by content. Trivial baselines: `chance`, a uniform value; and
    `any_value`, one of the K values seen (1/K).
    """

    metrics: ClassVar[dict[str, str]] = {"val_accuracy": "maximize", "val_sequence_accuracy": "maximize"}
    name: Literal["mqar"] = "mqar"
    vocab_size: int = option(8192, "V, keys and values together; even.", ge=8, multiple_of=2)
    num_pairs: int = option(4, "K, pairs a sequence.", ge=1, sweep=[4, 8, 16])
    power_a: float = option(0.01, "a of the power law of the distance between a pair and its query.", gt=0)
    random_non_queries: bool = option(
        False, "Fill the places that hold 0 with uniform tokens, as Zoology's generator does by default."
    )

    @pydantic.model_validator(mode="after")
    def _enough_keys(self) -> Self:
        if self.num_pairs > self.vocab_size // 2 - 1:
            raise ValueError(f"num_pairs ({self.num_pairs}) is over the {self.vocab_size // 2 - 1} keys of vocab_size")
        return self


METHODS = (Method(MQAR, "workloads.tasks.recall:MQAR", "Zoology, arXiv:2312.04927, sec. 3 and its figure 2"),)
