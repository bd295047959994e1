"""A field that holds one method of a registry: `{name: ..., its options}`. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Union

import pydantic

from workloads.method import Method


def one_of(methods: Mapping[str, Method]) -> Any:
    """The type "options of one of these methods", told apart by `name`; a bare name stands for `{name: it}`."""
    union: Any = Union[tuple(method.options for method in methods.values())]  # noqa: UP007
    if len(methods) > 1:
        union = Annotated[union, pydantic.Discriminator("name")]
    return Annotated[union, pydantic.BeforeValidator(_from_bare_name)]


def one_or_pattern(methods: Mapping[str, Method]) -> Any:
    """The type "one method, or a list of them that repeats over the layers"."""
    one = one_of(methods)
    return Annotated[
        Annotated[one, pydantic.Tag("(one)")]
        | Annotated[list[one], pydantic.Tag("(pattern)"), pydantic.Field(min_length=1)],  # type: ignore[valid-type]
        pydantic.Discriminator(_one_or_pattern),
    ]


def _one_or_pattern(value: Any) -> str:
    return "(pattern)" if isinstance(value, list) else "(one)"


def _from_bare_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value
