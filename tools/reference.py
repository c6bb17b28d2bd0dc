"""Writes docs/reference/{errors,metrics,document}.md from the program itself; ``--check`` compares instead (`make lint`).

Not here: docs/reference/cli.md, which ``python -m headgate.cli.reference`` writes. Nothing is started: the data plane's
metrics are those of a gateway that was made and not run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headgate import _native, documents
from headgate.observe.declared import DECLARED

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
MADE_BY = "Made by `python tools/reference.py`; edit the program, not this page."
GRPC = {
    1: "CANCELLED",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    16: "UNAUTHENTICATED",
}


def errors() -> Iterator[str]:
    """The closed table of error codes."""
    yield "# Error codes"
    yield f"\n{MADE_BY}\n"
    yield 'Texts may change, codes may not. The data port answers `{"error": text, "code": code}`, the admin port'
    yield "`application/problem+json` with the same `code`. `retry` says whether the same request may succeed later.\n"
    yield "| code | HTTP | gRPC | retry |"
    yield "|---|---|---|---|"
    for row in json.loads(_native.error_codes()):
        grpc = GRPC[row["grpc"]] if row["grpc"] is not None else "-"
        yield f"| `{row['code']}` | {row['http'] or '-'} | {grpc} | {'yes' if row['retry'] else 'no'} |"


def metrics() -> Iterator[str]:
    """Every metric family of `/metrics`, the data plane's first."""
    yield "# Metrics"
    yield f"\n{MADE_BY}\n"
    yield "On the observe port under `/metrics`, in Prometheus' text format, beside those of the Python process."
    yield "Durations are in seconds, sizes in bytes.\n"
    yield "| metric | type | meaning |"
    yield "|---|---|---|"
    # With every setting that has metrics of its own.
    config = {"http": "127.0.0.1:0", "io_threads": 1, "pool_threads": 1, "memory_budget_bytes": 1 << 30}
    gateway = _native.Gateway(json.dumps(config).encode())
    for family in json.loads(gateway.metrics()):
        yield f"| `{family['name']}` | {family['type']} | {family['help']} |"
    for declared in DECLARED:
        yield f"| `{declared.name}` | {declared.kind} | {declared.help} |"


def document() -> Iterator[str]:
    """The fields of the documents, kind by kind."""
    for kind in documents.kinds():
        schema = documents.json_schema(kind)
        if kind == "Endpoint":
            yield "# The Endpoint document"
            yield f"\n{MADE_BY} The machine's form is `headgate validate --schema`.\n"
        else:
            yield f"\n## The {kind} document\n"
        yield "| field | required | meaning |"
        yield "|---|---|---|"
        yield from fields(schema, schema, "")


def fields(schema: dict[str, Any], part: dict[str, Any], path: str) -> Iterator[str]:
    """The rows of an object and of the objects within it."""
    required = part.get("required", [])
    for name, field in part.get("properties", {}).items():
        target = resolve(schema, field)
        words = " ".join(str(field.get("description") or target.get("description") or "").split())
        yield f"| `{path}{name}` | {'yes' if name in required else ''} | {words} |"
        yield from fields(schema, target, f"{path}{name}.")
        each = target.get("additionalProperties")
        for part in [
            *target.get("patternProperties", {}).values(),
            *([each] if isinstance(each, dict) else []),
        ]:
            yield from fields(schema, resolve(schema, part), f"{path}{name}.*.")
        if isinstance(target.get("items"), dict):
            yield from fields(schema, resolve(schema, target["items"]), f"{path}{name}[].")


def resolve(schema: dict[str, Any], field: dict[str, Any]) -> dict[str, Any]:
    """The object that a field is, or may be beside a short form."""
    options: list[dict[str, Any]] = [
        field,
        *field.get("anyOf", []),
        *field.get("allOf", []),
        *field.get("oneOf", []),
    ]
    for option in options:
        if "$ref" in option:
            return resolve(schema, schema["$defs"][option["$ref"].rsplit("/", 1)[1]])
    return next((option for option in options if "properties" in option), field)


PAGES = {"errors.md": errors, "metrics.md": metrics, "document.md": document}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Writes the generated reference pages.")
    parser.add_argument("--check", action="store_true", help="compare with the committed pages instead")
    check = parser.parse_args().check
    stale = []
    for name, page in PAGES.items():
        text = "\n".join(page()) + "\n"
        path = FOLDER / name
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(name)
    if stale:
        sys.exit(
            f"docs/reference: {', '.join(stale)} differ from the program; run: python tools/reference.py"
        )


if __name__ == "__main__":
    main()
