"""`stop_if` over reports: how long a condition must hold, restarts, new drivers."""

from orchestrator.spec.condition import stored
from orchestrator.spec.operations import StopRule
from orchestrator.stopping import Watch

DEAD = StopRule(when="moe/dead_frac > 0.25 for 3 reports", rewind="best")
NAN = StopRule(when="nan(val_loss)")


def told(watch: Watch, *values: float, first: int = 10) -> list[bool]:
    """Whether each report of `moe/dead_frac`, 10 steps apart, stops trial 1."""
    steps = range(first, first + 10 * len(values), 10)
    return [
        watch.seen(1, step, {"moe/dead_frac": value}) is not None for step, value in zip(steps, values, strict=True)
    ]


def test_a_condition_must_hold_in_so_many_reports_in_a_row():
    assert told(Watch([DEAD]), 0.3, 0.4, 0.1, 0.3, 0.3, 0.3) == [False] * 5 + [True]


def test_the_reason_names_the_condition_and_what_was_seen_and_since_when():
    watch = Watch([NAN, DEAD])
    told(watch, 0.1, 0.3, 0.4)
    met = watch.seen(1, 40, {"moe/dead_frac": 0.5, "val_loss": 2.0})
    assert met is not None
    assert met.reason == "stop_if at step 40: moe/dead_frac > 0.25 for 3 reports (moe/dead_frac 0.5)"
    assert (met.since, met.rewind) == (20, True)


def test_a_report_without_the_metric_says_nothing_either_way():
    watch = Watch([DEAD])
    assert told(watch, 0.3, 0.3) == [False, False]
    assert watch.seen(1, 25, {"val_loss": 1.0}) is None
    assert told(watch, 0.3, first=30) == [True]


def test_trials_are_told_apart():
    watch = Watch([DEAD])
    told(watch, 0.3, 0.3)
    assert watch.seen(2, 30, {"moe/dead_frac": 0.3}) is None


def test_steps_that_come_again_after_a_restart_count_once():
    watch = Watch([DEAD])
    told(watch, 0.3, 0.3)
    assert told(watch, 0.3, first=20) == [False]
    assert told(watch, 0.3, first=30) == [True]


def test_a_number_that_is_none_stops_at_once():
    watch = Watch([NAN])
    assert watch.seen(1, 10, stored({"val_loss": 1.0})) is None
    met = watch.seen(1, 20, stored({"val_loss": float("inf")}))
    assert met is not None
    assert (met.since, met.rewind) == (20, False)


def test_a_new_driver_goes_on_from_what_was_recorded():
    first = Watch([DEAD])
    assert first.names == ["moe/dead_frac", "nonfinite/moe/dead_frac"]
    second = Watch([DEAD])
    assert not second.knows(1)
    second.recall(1, {20: {"moe/dead_frac": 0.3}, 10: {"moe/dead_frac": 0.3}})
    assert second.knows(1)
    assert told(second, 0.3, first=30) == [True]
