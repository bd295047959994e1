"""Alarms that begin and end in reports."""

from orchestrator.health import News, alarms, news


def test_alarms_are_the_health_metrics_above_zero() -> None:
    metrics = {"health/expert_dead": 2.0, "health/entropy_low": 0.0, "val_bpb": 3.0}
    assert alarms(metrics) == {"expert_dead": 2}


def test_an_alarm_is_news_once_and_again_when_it_spreads_or_ends() -> None:
    history = [0.0, 1.0, 1.0, 2.0, 1.0, 0.0, 0.0]
    before: dict[str, float] = {}
    told = []
    for step, value in enumerate(history):
        report = {"health/expert_dead": value}
        told += news(before, report, step)
        before |= report
    assert told == [
        News("alarm: expert_dead", "in 1 layer at step 1"),
        News("alarm: expert_dead", "in 2 layers at step 3"),
        News("alarm over: expert_dead", "since step 5"),
    ]


def test_a_report_without_health_metrics_says_nothing_of_them() -> None:
    assert news({"health/expert_dead": 1.0}, {"val_bpb": 3.0}, 7) == []
