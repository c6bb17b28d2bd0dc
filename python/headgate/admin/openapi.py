"""``/openapi.json``: OpenAPI 3.1 made from the table of calls and the types of the answers.

Not here: the calls themselves (``table``). Next: ``docs/design/admin-api.md`` for the words behind it.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, TypeAdapter

import headgate
from headgate.admin.table import ApiCall
from headgate.control.domain.problems import STATUS
from headgate.control.domain.results import OperationView, Plan, Result
from headgate.documents import Endpoint

Schema = dict[str, Any]
_REF = "#/components/schemas/{model}"
_QUERY: dict[str, tuple[Schema, str]] = {
    "reason": ({"type": "string", "maxLength": 1000}, "Why; kept in the revision and the audit."),
    "dry_run": ({"type": "boolean", "default": False}, "Answers with the plan and changes nothing."),
    "take_traffic": ({"type": "boolean", "default": False}, "Makes live traffic what the document declares."),
    "source": (
        {"type": "string"},
        "The document's absolute path on the gateway's machine, for file: references.",
    ),
    "with_plans": (
        {"type": "string", "examples": ["careful,quick"]},
        "Of a dry run: rollout plans that are stored beside it. They may be named, and take their room.",
    ),
    "force": (
        {"type": "boolean", "default": False},
        "Removes an endpoint that has traffic, or revokes the last admin token.",
    ),
    "limit": ({"type": "integer", "minimum": 1}, "At most so many."),
    "before": ({"type": "integer", "minimum": 1}, "Only what is older than this one."),
    "window": ({"type": "string", "examples": ["24h"]}, "How far back."),
    "endpoint": ({"type": "string"}, "Only of this endpoint."),
    "follow": ({"type": "boolean", "default": True}, "false: the stream ends with what is stored."),
}
_PATH: dict[str, Schema] = {
    "endpoint": {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"},
    "version": {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"},
    "name": {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"},
    "n": {"type": "integer", "minimum": 1},
    "id": {"type": "string"},
}
_PROBLEM: Schema = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "facts"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "enum": sorted(STATUS)},
        "detail": {"type": "string"},
        "facts": {"type": "object"},
        "faults": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["path", "message"],
                "properties": {
                    "path": {"type": "string"},
                    "line": {"type": ["integer", "null"]},
                    "message": {"type": "string"},
                },
            },
        },
    },
}


def describe(table: list[ApiCall]) -> Schema:
    """The whole description."""
    components: dict[str, Schema] = {"Problem": _PROBLEM}
    paths: dict[str, Schema] = {}
    for call in table:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headgate admin API", "version": headgate.__version__},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "Problem": {
                    "description": "What was wrong, where, and what would be right.",
                    "content": {
                        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                    },
                }
            },
        },
    }


def _operation(call: ApiCall, components: dict[str, Schema]) -> Schema:
    described: Schema = {
        "operationId": _operation_id(call),
        "summary": call.summary,
        "description": f"Least role: {call.role}.",
        "parameters": _parameters(call),
        "responses": _responses(call, components),
    }
    if call.takes == "json" and call.body is not None:
        schema = _schema(call.body, components)
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    elif call.takes == "document":
        schema = _schema(call.body or Endpoint, components)
        kinds = {"application/json": {"schema": schema}, "application/yaml": {"schema": schema}}
        described["requestBody"] = {"required": True, "content": kinds}
    return described


def _operation_id(call: ApiCall) -> str:
    words = re.findall(r"[a-z]+", call.path.replace("{endpoint}", "endpoint").removeprefix("/v1"))
    return "_".join([call.method.lower(), *words])


def _parameters(call: ApiCall) -> list[Schema]:
    found: list[Schema] = [
        {"name": name, "in": "path", "required": True, "schema": _PATH[name]}
        for name in re.findall(r"{(\w+)}", call.path)
    ]
    for name in call.query:
        schema, text = _QUERY[name]
        found.append({"name": name, "in": "query", "schema": schema, "description": text})
    if call.matches:
        found.append(_header("If-Match", 'The revision that was read: "41". 428 when it is missing.'))
    if call.creates:
        found.append(_header("If-None-Match", "*: only if there is none yet."))
    if call.writes:
        found.append(_header("Idempotency-Key", "The same key gives the same answer for 24 hours."))
    if call.later:
        found.append(_header("Prefer", "respond-async: 202 when it takes longer than a second."))
    if call.answer == "text/event-stream":
        found.append(_header("Last-Event-ID", "What came after this event comes first."))
    return found


def _header(name: str, text: str) -> Schema:
    return {"name": name, "in": "header", "schema": {"type": "string"}, "description": text}


def _responses(call: ApiCall, components: dict[str, Schema]) -> Schema:
    problem = {"$ref": "#/components/responses/Problem"}
    if call.answer == "text/event-stream":
        stream = {"text/event-stream": {"schema": {"type": "string"}}}
        return {
            "200": {"description": "Events until the reader leaves.", "content": stream},
            "default": problem,
        }
    schema = _answer(call.answer, components)
    if call.answer is Result:
        schema = {"anyOf": [schema, _schema(Plan, components)]}
    answer = {"description": call.summary, "content": {"application/json": {"schema": schema}}}
    found: Schema = {str(call.status): answer, "default": problem}
    if call.creates:
        found["201"] = answer
    if call.later:
        content = {"application/json": {"schema": _schema(OperationView, components)}}
        found["202"] = {"description": "It goes on; see Location.", "content": content}
    return found


def _answer(answer: Any, components: dict[str, Schema]) -> Schema:
    """``{"field": [Type]}`` is an object with one list, ``{"fields": Type, "secret": str}`` a type with one field more."""
    if not isinstance(answer, dict):
        return _schema(answer, components)
    if "fields" in answer:
        extra = {name: {"type": "string"} for name in answer if name != "fields"}
        more = {"type": "object", "required": sorted(extra), "properties": extra}
        return {"allOf": [_schema(answer["fields"], components), more]}
    properties: Schema = {}
    for name, kind in answer.items():
        if isinstance(kind, list):
            properties[name] = {"type": "array", "items": _schema(kind[0], components)}
        else:
            properties[name] = {"type": "string"}
    return {"type": "object", "required": sorted(properties), "properties": properties}


def _schema(kind: Any, components: dict[str, Schema]) -> Schema:
    """The schema of a type; named types go to the components and are referred to."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        schema = kind.model_json_schema(ref_template=_REF)
    else:
        schema = TypeAdapter(kind).json_schema(ref_template=_REF)
    for name, part in schema.pop("$defs", {}).items():
        components[name] = part
    name = getattr(kind, "__name__", "")
    if "properties" not in schema or not name:
        return schema
    components[name] = schema
    return {"$ref": _REF.format(model=name)}
