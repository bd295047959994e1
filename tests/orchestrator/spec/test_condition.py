"""Conditions on reported metrics: what they read, when they hold, what is refused."""

import math

import pytest

from orchestrator.spec.condition import parse_condition, stored
from orchestrator.spec.expression import ExpressionError


@pytest.mark.parametrize(
    ("text", "reports", "names"),
    [
        ("moe/dead_frac > 0.25 for 3 reports", 3, ("moe/dead_frac",)),
        ("nan(train/loss)", 1, ("train/loss",)),
        ("gate/mean/0 < 0.1 or gate/mean/1 < 0.1 for 2 reports", 2, ("gate/mean/0", "gate/mean/1")),
        ("val_loss / train_loss > 2 for 1 report", 1, ("val_loss", "train_loss")),
        ("max(moe/cv, moe/util_max / 2) > 1", 1, ("moe/cv", "moe/util_max")),
    ],
)
def test_names_and_lengths_are_read(text, reports, names):
    condition = parse_condition(text)
    assert (condition.reports, condition.names, condition.text) == (reports, names, text)


@pytest.mark.parametrize(
    ("text", "metrics", "holds"),
    [
        ("moe/dead_frac > 0.25", {"moe/dead_frac": 0.3}, True),
        ("moe/dead_frac > 0.25", {"moe/dead_frac": 0.25}, False),
        ("moe/dead_frac > 0.25", {"val_loss": 1.0}, None),
        ("nan(val_loss)", {"val_loss": math.nan}, True),
        ("nan(val_loss)", {"val_loss": math.inf}, True),
        ("nan(val_loss)", {"val_loss": 1.0}, False),
        ("nan(val_loss)", {"train_loss": 1.0}, None),
        ("val_loss > 2", {"val_loss": math.nan}, False),
        ("nan(aux/z) or val_loss > 2", {"aux/z": 0.5, "val_loss": 3.0}, True),
        ("a / b > 2", {"a": 1.0, "b": 0.0}, None),
        ("a/b > 2", {"a": 1.0, "b": 0.1}, None),
        ("a / b > 2", {"a": 1.0, "b": 0.1}, True),
    ],
)
def test_a_report_meets_it_or_not_or_says_nothing(text, metrics, holds):
    assert parse_condition(text).holds(stored(metrics)) is holds


def test_what_is_kept_of_a_report_is_finite_and_tells_what_was_not():
    assert stored({"a": 1.0, "b": math.nan, "c": -math.inf}) == {"a": 1.0, "nonfinite/b": 1.0, "nonfinite/c": 1.0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 > 2", "reads no metric"),
        ("moe/dead_frac >", r"'moe/dead_frac >' is no expression"),
        ("nan(a + b)", r"nan\(METRIC\)"),
        ("a > 1 for 0 reports", "between 1 and"),
        ("a > 1 for many reports", "is no expression"),
        ("__import__('os')", "the functions are"),
        ("a.b().c > 1", "not allowed"),
        ("[x for x in y]", "not allowed"),
    ],
)
def test_what_is_no_condition_is_refused_in_the_words_of_the_file(text, says):
    with pytest.raises(ExpressionError, match=says):
        parse_condition(text)
