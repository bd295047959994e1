"""What is used up of a sweep's budget."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.lifecycle import TrialState
from orchestrator.spec.operations import Budget, Resources
from orchestrator.spending import out_of_patience, used_up
from tests.support.builders import NOW

TWO_GPUS = Resources(workers=2, cpu=4, gpu=1)


@pytest.mark.parametrize(
    ("words", "held_s", "passed_s", "says"),
    [
        ({"gpu_hours": 2}, 3599, 10**6, ""),
        ({"gpu_hours": 2}, 3600, 0, "the budget of 2 gpu_hours is used up"),
        ({"cpu_hours": 8}, 3600, 0, "the budget of 8 cpu_hours is used up"),
        ({"cpu_hours": 8.1}, 3600, 0, ""),
        ({"wall_clock": "1h30m"}, 10**6, 5399, ""),
        ({"wall_clock": "1h30m"}, 0, 5400, "the budget of 1h30m wall_clock is used up"),
        ({}, 10**9, 10**9, ""),
    ],
)
def test_the_limit_that_is_reached_is_named(words, held_s, passed_s, says):
    assert used_up(Budget(**words), TWO_GPUS, held_s=held_s, passed_s=passed_s) == says


def ended(scores: list[tuple[str, float | None]], state: TrialState = TrialState.SUCCEEDED) -> list[Any]:
    """Trials in the order in which they ended, each a configuration's name and its score."""
    return [
        SimpleNamespace(
            config_hash=name, score=score, number=i, state=state if score is not None else TrialState.FAILED,
            ended_at=NOW + timedelta(seconds=i),
        )
        for i, (name, score) in enumerate(scores)
    ]  # fmt: skip


def patience(count: int, trials: list[Any], *, maximize: bool = False) -> bool:
    return out_of_patience(Budget(patience=count), trials, maximize=maximize) != ""


def test_patience_counts_trials_since_the_last_progress():
    trials = ended([("a", 3.0), ("b", 2.0), ("c", 2.5), ("d", None), ("e", 2.0)])
    assert patience(3, trials)
    assert not patience(4, trials)
    assert patience(4, trials, maximize=True)


def test_a_lucky_seed_is_no_progress():
    trials = ended([("a", 3.0), ("a", 3.0), ("b", 1.0), ("b", 9.0)])
    assert patience(2, trials)
    assert not patience(3, trials)


def test_a_configuration_with_open_trials_does_not_count_yet():
    trials = ended([("a", 3.0), ("b", 4.0), ("b", 4.0)])
    trials[-1].state = TrialState.RUNNING
    assert not patience(1, trials)


def test_no_patience_is_endless_patience():
    assert out_of_patience(Budget(), ended([("a", 1.0)] * 50), maximize=False) == ""
