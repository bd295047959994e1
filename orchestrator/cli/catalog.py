"""Commands on what can be written: methods (and their options), schema."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from orchestrator.cli import render
from orchestrator.cli.command import add
from orchestrator.cli.sweeps import Format, FormatOption
from orchestrator.errors import BadInput, ExitCode


class Kind(StrEnum):
    """Registries of methods."""

    TASK = "task"
    MIXER = "mixer"
    FEEDFORWARD = "feedforward"
    ROUTER = "router"
    ACTIVATION = "activation"


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    add(app, methods)
    add(app, schema)


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One method; all of them when left out.")] = None,
    kind: Annotated[Kind | None, typer.Option("--kind", "-k", help="Only methods of this kind.")] = None,
    format: FormatOption = Format.TABLE,
) -> int:
    """List what a sweep file may name: tasks, mixers, feed-forwards, routers, activations; with options and sources.

    Examples:

      orch methods --kind router

      orch methods rg_lru
    """
    # The options of every method take pydantic a moment to build.
    from workloads.catalog import REGISTRIES
    from workloads.errors import nearest

    found = [
        _described(group, method)
        for group, registry in REGISTRIES.items()
        for method in registry.values()
        if (name is None or method.name == name) and (kind is None or group == kind)
    ]
    if name is not None and not found:
        known = [each for registry in REGISTRIES.values() for each in registry]
        raise BadInput(f"{name!r} is not a known method. {nearest(name, known)}")
    if format is Format.JSON:
        typer.echo(json.dumps(found, indent=2, default=str))
    elif name is None:
        render.out.print(_table(found))
    else:
        for each in found:
            render.out.print(_page(each))
    return ExitCode.OK


def schema(
    outputs: Annotated[bool, typer.Option("--outputs", help="Schemas of the JSON answers instead.")] = False,
) -> int:
    """Print the JSON Schema of the sweep file, for editors; or of orch's answers.

    Examples:

      orch schema > sweep.schema.json

      orch schema --outputs > answers.schema.json
    """
    from orchestrator.report import output_schemas
    from orchestrator.spec.schema import sweep_schema

    typer.echo(json.dumps(output_schemas() if outputs else sweep_schema(), indent=2))
    return ExitCode.OK


def _described(kind: str, method: Any) -> dict[str, Any]:
    options = {
        name: {
            "default": value,
            "description": method.fields[name].description or "",
            "sweep": method.sweep.get(name),
        }
        for name, value in method.defaults.items()
    }
    return {"kind": kind, "name": method.name, "source": method.source, "doc": method.doc, "options": options}


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("KIND", "NAME", "WHAT", "SOURCE"):
        table.add_column(heading, overflow="fold")
    for each in found:
        table.add_row(each["kind"], each["name"], each["doc"].partition("\n")[0], each["source"])
    return table


def _page(method: dict[str, Any]) -> Any:
    from rich.console import Group

    options = Table(box=None, pad_edge=False, title="options", title_justify="left")
    for heading in ("OPTION", "DEFAULT", "SWEEP", "MEANS"):
        options.add_column(heading, overflow="fold")
    for name, each in method["options"].items():
        sweep = ", ".join(map(str, each["sweep"])) if each["sweep"] else ""
        options.add_row(name, str(each["default"]), sweep, each["description"])
    head = Text.assemble((method["name"], "bold"), f"  ({method['kind']})\n{method['source']}\n\n{method['doc']}\n")
    return Group(head, options, Text())
