"""The JSON Schema of documents as written, for editors and for ``headgate validate --schema``.

It says what a schema can say; the rules between fields are checked by ``parse`` alone. Next: ``from_tree``.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import SchemaSerializer, core_schema

from headgate.documents.model import Endpoint

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of one document of kind ``Endpoint`` as written, units and short forms included."""
    schema = Endpoint.model_json_schema(by_alias=True, mode="validation", schema_generator=_AsWritten)
    _allow_short_form(schema["$defs"])
    _tidy(schema)
    return {"$schema": _DIALECT, **schema, "title": "Headgate document of kind Endpoint"}


class _AsWritten(GenerateJsonSchema):
    """Defaults with their units, as one would write them."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        default = super().get_default_value(schema)
        if "default" not in schema or default is None:
            return default
        return SchemaSerializer(schema["schema"]).to_python(default, mode="json")


def _allow_short_form(definitions: dict[str, Any]) -> None:
    """A version may be a string; and it has exactly one of model and constant."""
    version = definitions["Version"]
    version["oneOf"] = [{"required": ["model"]}, {"required": ["constant"]}]
    definitions["Version"] = {
        "description": version.pop("description"),
        "anyOf": [{"type": "string", "pattern": "^file:.+", "examples": ["file:models/digits/1"]}, version],
    }


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
