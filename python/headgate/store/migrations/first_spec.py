"""The spec of a row of the first schema. Pure, and on its own: a migration stays as it is while the program changes.

Such a row holds a document's content resolved: with units in the names of some fields, headers without ``header.``, and what the
document leaves open filled in. A row does not say whether that was written; it is left out again, since it is filled in again.
"""

from __future__ import annotations

import math
from typing import Any

Json = dict[str, Any]

_RUN: Json = {
    "placement": "auto",
    "threads": 1,
    "max_batch": 1,
    "max_delay": 0,
    "arena": False,
    "graph_optimization": "all",
    "device": ["cpu"],
}
"""What a document of that time leaves open about how a model is run."""

_SLOTS = 10_000


def spec_of(resolved: Json) -> tuple[Json, list[str], str | None]:
    """The spec, the versions of it that are not in the document, and the folder that its references were found in."""
    versions: Json = resolved["versions"]
    spec: Json = {
        "versions": {name: _version(version) for name, version in versions.items()},
        "traffic": _traffic(resolved),
        "columns": resolved["columns"],
        "labels": resolved.get("labels", {}),
        "limits": {"timeout": resolved["timeout_ms"], **_limits(resolved.get("limits", {}))},
        "answers": {"non_finite": resolved.get("non_finite", "error")},
    }
    if resolved["baseline"] is not None:
        spec["drift"] = {"baseline": resolved["baseline"]}
    kept = sorted(name for name, version in versions.items() if not version.get("in_document", True))
    return spec, kept, resolved["root"]


def _version(version: Json) -> Json:
    found: Json = {"digest": version["digest"]}
    if version.get("constant") is not None:
        found["constant"] = version["constant"]
    if version.get("run"):
        written = dict(version["run"])
        if "max_delay_us" in written:
            written["max_delay"] = written.pop("max_delay_us")
        found["run"] = {**_RUN, **written}
    found["compatible"] = version.get("compatible", True)
    return found


def _traffic(resolved: Json) -> Json:
    declared = resolved["declared"]
    found: Json = {
        "champion": declared["champion"],
        "weights": {name: slots for name, slots in declared.get("weights", {}).items() if slots},
        "keep_warm": resolved.get("keep_warm", False),
    }
    if declared.get("sticky") is not None:
        found["sticky"] = _header(declared["sticky"])
    fallback = resolved.get("fallback")
    if isinstance(fallback, dict):
        after = fallback.get("after_ms")
        fallback = {"to": fallback["to"]} | ({} if after is None else {"after": after})
    if fallback is not None:
        found["fallback"] = fallback
    return found


def _limits(limits: Json) -> Json:
    parts = {"rate": _rate, "breaker": _breaker, "priority": _priority}
    return {name: make(limits[name]) for name, make in parts.items() if limits.get(name) is not None}


def _rate(rate: Json) -> Json:
    found: Json = {"per_second": rate["per_second"]}
    if rate.get("by") is not None:
        found["by"] = _header(rate["by"])
    if rate["burst"] != math.ceil(rate["per_second"]):
        found["burst"] = rate["burst"]
    return found


def _breaker(breaker: Json) -> Json:
    return {
        "consecutive": breaker["consecutive"],
        "success_rate": round(breaker["success_rate"] * _SLOTS),
        "window": breaker["window_ms"],
        "min_requests": breaker["min_requests"],
    }


def _priority(priority: Json) -> Json:
    found: Json = {"by": _header(priority["by"]), "classes": priority["classes"]}
    if priority["unnamed"] != priority["classes"][-1]:
        found["unnamed"] = priority["unnamed"]
    return found


def _header(name: str) -> str:
    return f"header.{name}"
