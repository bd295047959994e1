"""What the options of every generated task share. Torch-free."""

from __future__ import annotations

from typing import ClassVar

from workloads.method import option, options


@options
class Generated:
    """Examples are drawn by rules; which split one belongs to is decided by a hash of its content."""

    goal: ClassVar[str] = "maximize"
    metric: ClassVar[str] = "val_accuracy"
    metrics: ClassVar[dict[str, str]] = {}
    validation_examples: int = option(1000, "Examples in the fixed validation set.", ge=1)
