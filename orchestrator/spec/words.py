"""What the sections of the sweep file are made of: their base, and the kinds of value that several of them have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from orchestrator.spec.expression import parse

_SPAN = re.compile(r"(?:(?P<d>\d+(?:\.\d+)?)d)?(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+)s)?")
_SECONDS: Mapping[str, float] = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]i?)?B?", re.IGNORECASE)
_VALUE = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_SELECTOR = re.compile(rf"!?(?:{_VALUE}|in\(\s*{_VALUE}(?:\s*,\s*{_VALUE})*\s*\))")
_BYTES: Mapping[str, int] = {"": 1} | {
    f"{prefix}{suffix}": base ** (power + 1)
    for power, prefix in enumerate("kmgt")
    for suffix, base in (("", 1000), ("i", 1024))
}


class Words(BaseModel):
    """Base of all sections: unknown keys are errors, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def seconds_of(text: str) -> float:
    """Seconds of a duration such as `90m`, `24h` or `1d12h`.

    Raises:
        ValueError: it is none, or no time at all.
    """
    match = _SPAN.fullmatch(text.strip())
    total = sum(_SECONDS[unit] * float(number) for unit, number in match.groupdict().items() if number) if match else 0
    if not total:
        raise ValueError(f"{text!r} is no duration; write it as 90s, 30m, 24h or 1d12h")
    return total


def bytes_of(text: str | int) -> int:
    """Bytes of a size such as `16GB`, `512MiB`, or a plain number of bytes.

    Raises:
        ValueError: it is none.
    """
    match = _SIZE.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write it as 16GB, 512MiB, or a number of bytes")
    return int(float(match["number"]) * _BYTES[(match["unit"] or "").lower()])


def _formula(text: Any) -> Any:
    if isinstance(text, str):
        parse(text)  # its ValueError says what is wrong with the expression
    return text


def _duration(text: Any) -> Any:
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise ValueError(f"{text} has no unit; write it as {text}s, {text}m or {text}h")
    if isinstance(text, str):
        seconds_of(text)
    return text


def _size(text: Any) -> Any:
    if isinstance(text, str | int) and not isinstance(text, bool):
        bytes_of(text)
        return str(text)
    return text


def _regex(text: Any) -> Any:
    if isinstance(text, str):
        try:
            re.compile(text)
        except re.error as error:
            raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


def _selector(text: Any) -> Any:
    if isinstance(text, str) and not _SELECTOR.fullmatch(text.strip()):
        raise ValueError(f"{text!r} is no selector; write a value, !value, in(one, other) or !in(one, other)")
    return text


Selector = Annotated[str, BeforeValidator(_selector)]
Formula = Annotated[str, BeforeValidator(_formula)]
Duration = Annotated[str, BeforeValidator(_duration)]
Size = Annotated[str, BeforeValidator(_size), WithJsonSchema({"type": ["string", "integer"]})]
Pattern = Annotated[str, BeforeValidator(_regex)]
