"""The short form of `make chaos`: a few trials, a few faults of every part."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import chaos

KINDS = (
    "worker kill -9",
    "coordinator kill -9",
    "driver kill -9, error at dispatch",
    "error at checkpoint",
    "error at committed",
    "kill at report",
)


@pytest.mark.timeout(900)
def test_a_few_faults_at_random_lose_double_and_change_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    steps = chaos.steps_in(chaos.TRIAL_S)
    bad = chaos.run(tmp_path / "home", told.append, trials=12, steps=steps, count=len(KINDS), seed=0, only=KINDS)
    assert bad == 0, "\n".join(told)
    assert told[-1].endswith("lost 0, doubled 0, differing 0")
