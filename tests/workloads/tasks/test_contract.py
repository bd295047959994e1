"""What every task promises, held over the whole registry."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from workloads import build_task, list_tasks, method
from workloads.config import TrialConfig
from workloads.tasks.base import IGNORE, Task
from workloads.tasks.generated import Generated, in_validation

LENGTH = 24
SMALL: dict[str, dict[str, Any]] = {
    "cpu_trace": {"memory_bytes": 16, "max_instructions": 4},
    "copying": {"delay": 8, "symbols": 6},
    "dyck": {"min_length": 8, "max_length": 32},
    "forecasting": {"history": 24, "horizon": 12, "stride": 20},
    "listops": {"min_length": 10, "max_length": 60},
    "mqar": {"vocab_size": 64},
    "parity": {"min_length": 12, "max_length": 30, "test_length": 40},
    "selective_copying": {"symbols": 6},
    "toy_chorales": {"pieces": 16},
}
TASKS = list_tasks()


def small(name: str) -> Task:
    options = SMALL.get(name, {})
    if isinstance(method(name).load(), type) and issubclass(method(name).load(), Generated):
        options = options | {"validation_examples": 40}
    return build_task(name, **options)


def uniform(task: Task) -> Any:
    """A model that knows nothing."""
    signature = task.signature(LENGTH)

    def predict(inputs: Tensor) -> Tensor:
        shape = inputs.shape[:2] if signature.readout == "position" else inputs.shape[:1]
        return torch.zeros(*shape, signature.outputs)

    return predict


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_is_a_pure_function_of_step_and_seed(name: str):
    task, twin = small(name), small(name)
    assert task.fingerprint == twin.fingerprint
    task.batch(1, 5, 4, LENGTH)
    first, again = task.batch(3, 7, 4, LENGTH), twin.batch(3, 7, 4, LENGTH)
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.targets, again.targets)
    for other in (task.batch(4, 7, 4, LENGTH), task.batch(3, 8, 4, LENGTH)):
        assert first.inputs.shape != other.inputs.shape or not torch.equal(first.inputs, other.inputs)


@pytest.mark.parametrize("name", TASKS)
def test_batches_have_the_shapes_of_the_signature(name: str):
    task = small(name)
    signature = task.signature(LENGTH)
    for batch in (task.batch(1, 0, 4, LENGTH), next(task.validation(4, LENGTH))):
        assert len(batch) == 4
        if signature.vocab_size is not None:
            assert batch.inputs.dtype == torch.int64
            assert 0 <= batch.inputs.min() <= batch.inputs.max() < signature.vocab_size
        else:
            assert batch.inputs.dtype == torch.float32
            assert batch.inputs.shape[2] == signature.input_width
        if batch.targets.is_floating_point():
            assert batch.targets.shape[-1] == signature.outputs
        else:
            scored = batch.targets[batch.targets != IGNORE]
            assert len(scored)
            assert 0 <= scored.min() <= scored.max() < signature.outputs
        assert task.weight(batch.targets) > 0
    if name not in ("jsb_chorales", "toy_chorales"):
        assert task.batch(1, 0, 4, LENGTH).inputs.shape[1] == signature.sequence_length


@pytest.mark.parametrize("name", TASKS)
def test_evaluation_is_deterministic_and_gives_the_metrics_that_were_announced(name: str):
    task = small(name)
    metrics = task.evaluate(uniform(task), 8, LENGTH)
    again = small(name).evaluate(uniform(task), 8, LENGTH)
    assert metrics == again
    assert task.metric in metrics
    assert "val_loss" in metrics
    announced = {task.metric, *type(task.options).metrics}
    regression = {"val_rmse", "test_rmse"}
    assert announced - regression <= set(metrics)
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("name", TASKS)
def test_the_evaluation_does_not_hang_on_the_batch_size(name: str):
    task = small(name)
    whole, parts = task.evaluate(uniform(task), 64, LENGTH), task.evaluate(uniform(task), 7, LENGTH)
    assert whole == pytest.approx(parts, rel=1e-4)  # float32 sums in another order


@pytest.mark.parametrize("name", TASKS)
def test_the_documentation_tells_licence_split_and_baseline(name: str):
    text = method(name).doc.lower()
    assert any(word in text for word in ("licence", "bsd", "apache", "public domain"))
    assert "split" in text
    assert "baseline" in text


@pytest.mark.parametrize("name", TASKS)
def test_baselines_and_smoke_size(name: str):
    task = small(name)
    baselines = task.baseline(LENGTH)
    assert baselines
    assert all(math.isfinite(value) for value in baselines.values())
    assert task.goal in ("minimize", "maximize")
    TrialConfig.parse(task.smoke() | {"seed": 0})


@pytest.mark.parametrize("name", [n for n in TASKS if issubclass(method(n).load(), Generated)])
def test_no_generated_sequence_is_in_both_splits(name: str):
    task = small(name)
    train = torch.cat([task.batch(step, 0, 32, LENGTH).inputs for step in range(1, 9)])
    held_out = torch.cat([batch.inputs for batch in Generated.validation(task, 32, LENGTH)])
    assert not in_validation(train.numpy()).any()
    assert in_validation(held_out.numpy()).all()
    rows = {row.numpy().tobytes() for row in held_out}
    assert not rows & {row.numpy().tobytes() for row in train}


@pytest.mark.parametrize("name", ["jsb_chorales", "seq_digits", "tabular"])
def test_finite_data_are_read_once_an_epoch(name: str):
    task = small(name)
    count = (
        len(task.pieces["train"])
        if name == "jsb_chorales"
        else len(task.train if name == "seq_digits" else task.parts["train"])
    )
    wide = max(task.batch(step, 0, 4, LENGTH).inputs.shape[1] for step in range(1, count // 4 + 1))
    rows = []
    for step in range(1, count // 4 + 1):
        for row in task.batch(step, 0, 4, LENGTH).inputs:
            rows.append(torch.nn.functional.pad(row, (0, 0, 0, wide - len(row))).numpy().tobytes())
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("name", [n for n in TASKS if issubclass(method(n).load(), Generated)])
def test_the_fingerprint_changes_with_the_options(name: str):
    assert small(name).fingerprint != build_task(name, **SMALL.get(name, {}), validation_examples=41).fingerprint
