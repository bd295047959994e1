"""Conditions on reported metrics: `moe/dead_frac > 0.25 for 3 reports`, `nan(train_loss)`. Pure; never `eval`.

The arithmetic and comparisons are those of `expression`. Two things are added: a metric's name may hold slashes (a
division has spaces around it), and `nan(name)` is true where the metric was reported and is no finite number.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.spec.expression import Expression, ExpressionError, parse

NONFINITE = "nonfinite/"
"""Reported beside its name where a metric is infinite or no number: only finite numbers are kept."""

MOST_REPORTS = 10_000
_LASTS = re.compile(r"(?P<what>.*?)(?:\s+for\s+(?P<reports>\d+)\s+reports?)?\s*", re.DOTALL)
_NAN = re.compile(r"\bnan\(\s*([A-Za-z_][\w./]*)\s*\)")
_SLASHED = re.compile(r"[A-Za-z_][\w.]*(?:/\w[\w.]*)+")


def stored(metrics: Mapping[str, float]) -> dict[str, float]:
    """A report as it is kept and judged: finite numbers, and which of the others were there."""
    return {
        name if math.isfinite(value) else f"{NONFINITE}{name}": value if math.isfinite(value) else 1.0
        for name, value in metrics.items()
    }


@dataclass(frozen=True, slots=True)
class Condition:
    """reports: how many reports in a row it must hold for. names: the metrics that it reads."""

    text: str
    reports: int
    names: tuple[str, ...]
    _expression: Expression
    _stands_for: Mapping[str, tuple[bool, str]]

    def holds(self, metrics: Mapping[str, float]) -> bool | None:
        """Whether one report meets it; None where it lacks a metric that is read, and says nothing either way.

        Args:
            metrics: of one report, as `stored` gives them.
        """

        def value(word: str) -> float | bool:
            asks_nan, name = self._stands_for.get(word, (False, word))
            missing = f"{NONFINITE}{name}" in metrics
            if asks_nan:
                return missing if missing or name in metrics else _absent(name)
            return math.nan if missing else metrics[name]

        try:
            return bool(self._expression.value(value))
        except ExpressionError:
            return None


def _absent(name: str) -> bool:
    raise KeyError(name)


@functools.lru_cache(maxsize=1024)
def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        ExpressionError: it is none, or reads no metric.
    """
    match = _LASTS.fullmatch(text)
    assert match is not None, "the pattern matches any text"
    reports = int(match["reports"] or 1)
    if not 1 <= reports <= MOST_REPORTS:
        raise ExpressionError(f"{text!r}: `for {reports} reports` must lie between 1 and {MOST_REPORTS:,}")
    meanings: dict[str, tuple[bool, str]] = {}

    def stand_in(asks_nan: bool, name: str) -> str:
        word = f"{'nan__' if asks_nan else ''}{re.sub(r'[/.]', '__', name)}"
        meanings[word] = (asks_nan, name)
        return word

    plain = _NAN.sub(lambda found: stand_in(True, found[1]), match["what"])
    plain = _SLASHED.sub(lambda found: stand_in(False, found[0]), plain)
    try:
        expression = parse(plain)
    except ExpressionError as error:
        raise ExpressionError(_as_written(str(error), plain, match["what"])) from None
    if not expression.names:
        raise ExpressionError(f"{text!r} reads no metric; write a condition such as `moe/dead_frac > 0.25`")
    names = tuple(dict.fromkeys(meanings.get(word, (False, word))[1] for word in expression.names))
    return Condition(text, reports, names, expression, meanings)


def _as_written(message: str, plain: str, text: str) -> str:
    if "nan" in plain and "the functions are" in message:
        return f"{text!r}: the functions are nan(METRIC) and {message.partition('the functions are ')[2]}"
    return message.replace(plain.strip(), text.strip())
