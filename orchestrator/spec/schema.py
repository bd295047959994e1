"""The JSON Schema of the sweep file, for editors: built from the words and from every method's own options."""

from __future__ import annotations

from typing import Any

import pydantic

from orchestrator.spec.model import SweepSpec
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
    properties["parameters"]["additionalProperties"] = {
        "anyOf": [
            {"$ref": "#/$defs/Parameter"},
            {"type": "array", "description": "Short for `values`.", "minItems": 1},
            {"type": ["string", "number", "boolean", "null"], "description": "Short for `value`."},
        ]
    }
    count = {"type": "integer", "minimum": 1, "maximum": 1000, "description": "Short for [0, 1, ..., n - 1]."}
    properties["seeds"] = {"anyOf": [properties["seeds"], count]}
    files = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    properties["extends"] = files | {"description": "Sweep files, beside this one, that this one is laid over."}
    properties["profiles"] = {
        "type": "object",
        "description": "Named overlays of this file; `--profile smoke` lays one over it.",
        "additionalProperties": {"type": "object"},
    }
    return {"$schema": DRAFT, "title": "orch sweep file"} | schema


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
