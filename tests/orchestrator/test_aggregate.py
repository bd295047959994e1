"""What of a curve counts."""

import pytest

from orchestrator.aggregate import Aggregate

CURVE = [(10, 3.0), (20, 1.0), (30, 2.0), (40, 4.0)]


@pytest.mark.parametrize(
    ("aggregate", "running"),
    [
        (Aggregate("last"), [3.0, 1.0, 2.0, 4.0]),
        (Aggregate("best"), [3.0, 1.0, 1.0, 1.0]),
        (Aggregate("best", maximize=True), [3.0, 3.0, 3.0, 4.0]),
        (Aggregate("mean_last_k", k=2), [3.0, 2.0, 1.5, 3.0]),
    ],
)
def test_a_curve_is_worth_what_the_file_says_at_each_step(aggregate, running):
    assert aggregate.running(CURVE) == list(zip([10, 20, 30, 40], running, strict=True))


def test_a_spec_that_is_silent_means_the_last_value():
    assert Aggregate.of({}, "minimize").value([1.0, 2.0]) == 2.0
    assert Aggregate.of({"metric": None}, "maximize") == Aggregate("last", 1, maximize=True)
