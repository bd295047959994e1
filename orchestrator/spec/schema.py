"""The JSON Schema of the sweep file, for editors: built from the words and from every method's own options."""

from __future__ import annotations

from typing import Any

import pydantic

from orchestrator.spec.aliases import DISTRIBUTIONS, MOVES, PARAMETER_TYPES, PARAMETER_WORDS, SECTIONS
from orchestrator.spec.model import SweepSpec
from orchestrator.spec.operations import ACTIONS
from workloads.config import TrialConfig

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def sweep_schema() -> dict[str, Any]:
    """Schema of a sweep file as a person writes it: with `extends`, `profiles`, and short forms of parameters."""
    schema = SweepSpec.model_json_schema(mode="validation")
    workload = pydantic.TypeAdapter(TrialConfig).json_schema(mode="validation")
    definitions = schema.setdefault("$defs", {}) | workload.pop("$defs", {})
    workload["properties"].pop("seed", None)
    workload["title"] = "Workload"
    definitions["Workload"] = _with_bare_names(workload)
    schema["$defs"] = {name: _with_bare_names(each) for name, each in definitions.items()}
    properties = schema["properties"]
    properties["workload"] = {"$ref": "#/$defs/Workload", "description": properties["workload"]["description"]}
    parameter = [
        {"$ref": "#/$defs/Parameter"},
        {"type": "array", "description": "Short for `values`.", "minItems": 1},
        {"type": ["string", "number", "boolean", "null"], "description": "Short for `value`."},
    ]
    properties["parameters"]["additionalProperties"] = {"anyOf": parameter}
    nested = {"$ref": "#/$defs/NestedParameters"}
    schema["$defs"]["NestedParameters"] = {
        "type": "object",
        "description": "Nested names: `training: {lr: ...}` is `training.lr`.",
        "minProperties": 1,
        "additionalProperties": {"anyOf": [*parameter, nested]},
    }
    properties["parameters"]["properties"] = {section: {"anyOf": [*parameter, nested]} for section in SECTIONS}
    _allow_short_forms(properties)
    _allow_aliases(schema)
    files = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    properties["extends"] = files | {"description": "Sweep files, beside this one, that this one is laid over."}
    properties["profiles"] = {
        "type": "object",
        "description": "Named overlays of this file; `--profile smoke` lays one over it.",
        "additionalProperties": {"type": "object"},
    }
    return {"$schema": DRAFT, "title": "orch sweep file"} | schema


def _allow_short_forms(properties: dict[str, Any]) -> None:
    """What the loader writes out by itself: a count or list of seeds, bare conditions, single names."""
    seed = {"type": "integer", "minimum": 0}
    count = {"type": "integer", "minimum": 1, "maximum": 1000, "description": "Short for [0, 1, ..., n - 1]."}
    several = {"type": "array", "items": seed, "minItems": 1, "description": "Short for `values`."}
    properties["seeds"] = {"anyOf": [{"$ref": "#/$defs/Seeds"}, several, count]} | _described(properties["seeds"])
    condition = {"type": "string", "description": "Short for `when`."}
    rule = {"anyOf": [{"$ref": "#/$defs/StopRule"}, condition]}
    rules = {"anyOf": [{"type": "array", "items": rule}, *rule["anyOf"]]}
    properties["stop_if"] = rules | _described(properties["stop_if"])
    sweep: dict[str, Any] = {"type": ["string", "integer"]}
    sweeps = {"anyOf": [sweep, {"type": "array", "items": sweep}]}
    properties["depends_on"] = sweeps | _described(properties["depends_on"])


def _allow_aliases(schema: dict[str, Any]) -> None:
    """Each alias beside what it stands for, with the description "Same as ..."; its value is checked there alone."""
    for old, new, _ in MOVES:
        here = schema
        for part in old[:-1]:
            section = here["properties"].setdefault(part, {"type": "object", "properties": {}})
            here = _section(schema, section)
        same = {"description": f"Same as `{'.'.join(map(str, new))}`."}
        here["properties"].setdefault(old[-1], same)
    parameter = schema["$defs"]["Parameter"]["properties"]
    for alias, word in PARAMETER_WORDS.items():
        parameter[alias] = {"description": f"Same as `{word}`."}
    parameter["type"] = {"enum": [*PARAMETER_TYPES, "log"], "description": "Determined's word for the distribution."}
    parameter["base"] = {"type": "number", "description": "Of Determined's `log`, whose ends are exponents."}
    parameter["distribution"]["anyOf"][0]["enum"] += DISTRIBUTIONS
    schema["$defs"]["LogPolicy"]["properties"]["action"]["enum"] += sorted(ACTIONS)


def _section(schema: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The definition that a property refers to, or the property itself."""
    for each in (found, *found.get("anyOf", ()), *found.get("allOf", ())):
        if "$ref" in each:
            definition: dict[str, Any] = schema["$defs"][each["$ref"].rpartition("/")[2]]
            return definition
    return found


def _described(node: dict[str, Any]) -> dict[str, Any]:
    return {key: node[key] for key in ("description",) if key in node}


def _with_bare_names(node: Any) -> Any:
    """Where a method is chosen (a union told apart by `name`), its bare name is allowed too."""
    if isinstance(node, list):
        return [_with_bare_names(each) for each in node]
    if not isinstance(node, dict):
        return node
    node = {key: _with_bare_names(value) for key, value in node.items()}
    mapping = node.get("discriminator", {}).get("mapping") if isinstance(node.get("discriminator"), dict) else None
    if mapping and "oneOf" in node:
        rest = {key: value for key, value in node.items() if key not in ("oneOf", "discriminator")}
        return {"anyOf": [*node["oneOf"], {"enum": sorted(mapping)}]} | rest
    return node
