"""Errors as ``application/problem+json`` (RFC 9457): the one place where a code becomes a status.

Not here: which code an error has (``errors``), how an answer is sent (``admin``). Next: ``writes``.
The statuses are those of ``rust/core/src/error.rs``; a test compares the two.
"""

from __future__ import annotations

from typing import Any, Final

from headgate.errors import HeadgateError

STATUS: Final[dict[str, int]] = {
    "invalid_argument": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "model_not_found": 404,
    "version_not_found": 404,
    "not_found": 404,
    "request_timeout": 408,
    "payload_too_large": 413,
    "misdirected": 421,
    "rate_limited": 429,
    "unsupported_media_type": 415,
    "unsupported": 501,
    "overloaded": 503,
    "model_not_ready": 503,
    "draining": 503,
    "storage_failed": 503,
    "deadline_exceeded": 504,
    "backend_failed": 500,
    "internal": 500,
    "conflict": 409,
    "revision_conflict": 412,
    "precondition_required": 428,
    "policy_invalid": 422,
    "model_load_failed": 422,
}
"""HTTP status by code; ``cancelled`` has none, because nobody is there to read it."""


def status_of(code: str) -> int:
    """The HTTP status of a code; a code that is not in the table is a defect."""
    return STATUS.get(code, 500)


def problem(error: HeadgateError, status: int | None = None) -> dict[str, Any]:
    """The body of an answer; ``status`` only where routing says another one than the table (405)."""
    facts = {name: fact for name, fact in error.detail.items() if name != "faults"}
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": error.code.replace("_", " ").capitalize(),
        "status": status or status_of(error.code),
        "code": error.code,
        "detail": error.message,
        "facts": facts,
    }
    if "faults" in error.detail:
        body["faults"] = error.detail["faults"]
    return body
