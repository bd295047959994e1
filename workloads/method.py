"""What a method of a registry is: a name, typed options, a source, and where its code lives. Torch-free.

Options stand apart from the implementations, because a sweep file is checked, planned and documented in
processes that never import torch. An options class is the single place of a method's defaults, limits and
sweep ranges; schema, help, validation and `orch methods` are derived from it.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar, dataclass_transform

import pydantic
from pydantic import ConfigDict
from pydantic.fields import FieldInfo

T = TypeVar("T", bound=type)

CONFIG = ConfigDict(extra="forbid", validate_default=True)


def option(
    default: Any = dataclasses.MISSING, description: str = "", *, sweep: Sequence[Any] | None = None, **limits: Any
) -> Any:
    """A field of an options class.

    Args:
        default: the paper's own value.
        description: one sentence for schema, help and `orch methods`.
        sweep: the values that a first sweep over this option would try.
        limits: pydantic's `ge`, `gt`, `le`, `lt`, `min_length`, ...
    """
    extra: Any = {"sweep": list(sweep)} if sweep is not None else None
    if default is not dataclasses.MISSING:
        limits["default"] = default
    return pydantic.Field(description=description, json_schema_extra=extra, **limits)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(option,))
def options(cls: T) -> T:
    """Make `cls` a frozen, keyword-only dataclass whose values are checked when it is built."""
    return pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=CONFIG)(cls)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Method:
    """One entry of a registry.

    options: the options class; its docstring is the method's documentation, its `name` default the method's name.
    implementation: "package.module:Class", resolved only where torch is wanted.
    source: paper and place in it ("Switch Transformer, arXiv:2101.03961, eq. 4").
    """

    options: type
    implementation: str
    source: str

    @property
    def name(self) -> str:
        """The registered name, snake_case of the literature's own."""
        return str(self.fields["name"].default)

    @property
    def doc(self) -> str:
        """The method's documentation: what it does, its formula and shapes."""
        return (self.options.__doc__ or "").strip()

    @property
    def fields(self) -> Mapping[str, FieldInfo]:
        """pydantic's description of every option, `name` included."""
        return self.options.__pydantic_fields__  # type: ignore[attr-defined]

    @property
    def defaults(self) -> dict[str, Any]:
        """Default of every option; options that must be given are absent."""
        built = self.options(name=self.name)
        return {name: getattr(built, name) for name in self.fields if name != "name"}

    @property
    def sweep(self) -> dict[str, list[Any]]:
        """Suggested values by option, for the options that are worth sweeping."""
        extras: dict[str, Any] = {name: field.json_schema_extra for name, field in self.fields.items()}
        return {name: list(extra["sweep"]) for name, extra in extras.items() if extra and "sweep" in extra}

    def load(self) -> type:
        """Import the implementation."""
        module, _, cls = self.implementation.partition(":")
        return getattr(importlib.import_module(module), cls)


def registry(methods: Iterable[Method]) -> Mapping[str, Method]:
    """Methods by name, in name order."""
    table = {method.name: method for method in methods}
    return MappingProxyType(dict(sorted(table.items())))
