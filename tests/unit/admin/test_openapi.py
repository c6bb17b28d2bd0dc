"""``/openapi.json`` is complete, sound, and says what the API really answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from headgate.admin.tokens import TokenView
from headgate.control.domain import results
from headgate.control.reads import views
from unit.admin_harness import port
from unit.control_harness import document, run

E = "/v1/endpoints/digits"
DOC = Path(__file__).parents[3] / "docs" / "design" / "admin-api.md"


def refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from refs(value)


def test_it_is_sound(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            schema = (await p.viewer.get("/openapi.json")).json()
            assert schema["openapi"].startswith("3.1")
            for ref in refs(schema):
                node = schema
                for part in ref.removeprefix("#/").split("/"):
                    node = node[part]
            ids = []
            for path, methods in schema["paths"].items():
                for method, operation in methods.items():
                    ids.append(operation["operationId"])
                    declared = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
                    assert declared == set(re.findall(r"{(\w+)}", path))
                    assert operation["responses"]["default"] == {"$ref": "#/components/responses/Problem"}
                    assert any(code.startswith("2") for code in operation["responses"])
                    assert ("requestBody" in operation) == (method in ("put", "post", "patch"))
            assert len(ids) == len(set(ids))

    run(body)


def test_it_lists_exactly_the_calls_of_the_document(tmp_path: Path) -> None:
    rows = re.findall(r"^\| `(GET|PUT|POST|PATCH|DELETE) (\S+?)`", DOC.read_text(), re.M)
    written = {(method, path.replace("{e}", "{endpoint}")) for method, path in rows} - {
        ("GET", "/openapi.json")
    }
    joined = re.findall(r"`GET (/v1/endpoints/\{e\})`", DOC.read_text())
    assert joined

    async def body() -> None:
        async with port(tmp_path) as p:
            schema = (await p.viewer.get("/openapi.json")).json()
            listed = {
                (method.upper(), path) for path, methods in schema["paths"].items() for method in methods
            }
            assert listed == written

    run(body)


def test_answers_have_the_shapes_it_says(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            made = await p.operator.put(
                E,
                content=document("{champion: v1, weights: {v2: 10%}, sticky: header.x-user-id}"),
                headers={"content-type": "application/yaml", "if-none-match": "*"},
            )
            fits(results.Result, made.json())
            fits(results.Result, (await p.operator.post(f"{E}:block", json={"version": "v3"})).json())
            fits(results.Plan, (await p.operator.post(f"{E}:rollback?dry_run=true", json={})).json())
            fits(views.EndpointView, (await p.viewer.get(E)).json())
            fits(views.TrafficView, (await p.viewer.get(f"{E}/traffic")).json())
            fits(views.Explanation, (await p.viewer.post(f"{E}:explain", json={})).json())
            fits(views.RevisionView, (await p.viewer.get(f"{E}/revisions/2")).json())
            fits(views.Models, (await p.viewer.get("/v1/models")).json())
            for one in (await p.viewer.get("/v1/endpoints")).json()["endpoints"]:
                fits(views.EndpointSummary, one)
            for one in (await p.viewer.get(f"{E}/revisions")).json()["revisions"]:
                fits(views.RevisionSummary, one)
            for one in (await p.operator.get("/v1/audit")).json()["entries"]:
                fits(views.AuditView, one)
            for one in (await p.admin.get("/v1/tokens")).json()["tokens"]:
                fits(TokenView, one)

    run(body)


def fits(kind: Any, answer: dict[str, Any]) -> None:
    """Every field there, of its type, and none beyond."""
    TypeAdapter(kind).validate_python(answer, extra="forbid")
