"""The JSON Schema of documents as written, for editors and for ``headgate validate --schema``.

It says what a schema can say; the rules between fields are checked by ``parse`` alone. Next: ``from_tree``.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import SchemaSerializer, core_schema

from headgate.documents.checks import MODELS
from headgate.documents.rollout import STEP_KINDS

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(kind: str = "Endpoint") -> dict[str, Any]:
    """JSON Schema 2020-12 of one document of that kind as written, units and short forms included. Fields that are not supported are
    left out.
    """
    model = MODELS[kind]
    schema = model.model_json_schema(by_alias=True, mode="validation", schema_generator=_AsWritten)
    for name in model.not_yet & schema["properties"].keys():
        del schema["properties"][name]
    _allow_short_forms(schema["$defs"])
    _tidy(schema)
    used = _references(schema["properties"], schema["$defs"])
    schema["$defs"] = {name: part for name, part in schema["$defs"].items() if name in used}
    return {"$schema": _DIALECT, **schema, "title": f"Headgate document of kind {kind}"}


def _references(node: Any, definitions: dict[str, Any]) -> set[str]:
    """The definitions that a node refers to, and those that they refer to."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            name = str(node.get("$ref", "")).removeprefix("#/$defs/")
            if name and name not in found:
                found.add(name)
                waiting.append(definitions[name])
            waiting += node.values()
    return found


class _AsWritten(GenerateJsonSchema):
    """Defaults with their units, as one would write them."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        default = super().get_default_value(schema)
        if "default" not in schema or default is None:
            return default
        return SchemaSerializer(schema["schema"]).to_python(default, mode="json")


def _allow_short_forms(definitions: dict[str, Any]) -> None:
    """A version, a step and a gate may be a word or a value; a version has exactly one of model and constant, a step is of one kind."""
    reference = {"type": "string", "pattern": "^file:.+", "examples": ["file:models/digits/1"]}
    short = {
        "Version": reference,
        "RolloutStep": {"enum": ["pause", "promote"]},
        "Gate": {"type": ["string", "number"], "examples": ["1.5x", "2%", 0.1]},
    }
    one_of = {"Version": ("model", "constant"), "RolloutStep": STEP_KINDS}
    for name in short.keys() & definitions.keys():
        part = definitions[name]
        if name in one_of:
            part["oneOf"] = [{"required": [field]} for field in one_of[name]]
        definitions[name] = {"description": part.pop("description"), "anyOf": [short[name], part]}


def _tidy(node: Any) -> None:
    """Null is never written (an empty field is a fault), other names are refused, titles only repeat the names."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    if not isinstance(node, dict):
        return
    options = node.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        rest = [option for option in options if option != {"type": "null"}]
        del node["anyOf"]
        if "default" in node and node["default"] is None:
            del node["default"]
        if len(rest) == 1:
            node.update({k: v for k, v in rest[0].items() if k not in node})
        else:
            node["anyOf"] = rest
    if "patternProperties" in node:
        node.setdefault("additionalProperties", False)
    if isinstance(node.get("title"), str):
        del node["title"]
    for value in node.values():
        _tidy(value)
