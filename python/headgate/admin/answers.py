"""Answers of writes: waited for, or an operation when the caller wants no more than that; with the headers that such answers have.

Not here: what is written (``control``). Next: ``endpoints``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

from starlette.responses import JSONResponse, Response

from headgate.admin.admin_request import AdminRequest
from headgate.control import Call, Control, Result

NO_STORE = {"cache-control": "no-store"}


async def answered(
    control: Control, request: AdminRequest, call: Call, kind: str, work: Coroutine[Any, Any, Result]
) -> Response:
    """Waits for a write; with ``Prefer: respond-async`` only for a while, then answers with an operation."""
    if not request.wants_operation() or call.dry_run:
        return written(await work)
    task = asyncio.create_task(work)
    done, _ = await asyncio.wait({task}, timeout=control.settings.answer_seconds)
    if done:
        return written(task.result())
    operation = await control.operations.adopt(task, request.endpoint, kind)
    where = {"location": f"/v1/operations/{operation['id']}", "preference-applied": "respond-async"}
    return JSONResponse(operation, 202, where)


def written(result: Result) -> Response:
    """The answer of a write: 201 when it created, the plan alone when it was a dry run."""
    replayed = result.get("replayed", False)
    body = {name: value for name, value in result.items() if name != "replayed"}
    if result["status"] == "planned":
        return JSONResponse(result["plan"])
    created = result["kind"] in ("apply", "restore") and result["plan"]["base_revision"] is None
    revision = result["revision"]
    headers = dict(NO_STORE) if revision is None else etag(revision)
    if replayed:
        headers["idempotency-replayed"] = "true"
    return JSONResponse(body, 201 if created else 200, headers)


def etag(revision: int) -> dict[str, str]:
    """The headers of an answer about a revision."""
    return {"etag": f'"{revision}"', **NO_STORE}


async def as_coroutine(work: Awaitable[Result]) -> Result:
    """An awaitable as what a task takes."""
    return await work
