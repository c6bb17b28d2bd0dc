"""The calls about endpoints: read, apply, traffic, emergency calls, history.

Not here: what they mean (``control``), which role they need (``table``). Next: ``rest``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse, Response

from headgate.admin.asked import Asked
from headgate.admin.bodies import ExplainKey, Plain, RestoreTo, Subject, TrafficPatch
from headgate.control import ANY, Call, Control, Result
from headgate.documents import parse_duration
from headgate.errors import InvalidArgument

_HISTORY_MAX = 500
_WINDOW_MAX_SECONDS = 366 * 86_400
Emergency = Callable[..., Awaitable[Result]]


class Endpoints:
    """Handlers around one control plane."""

    def __init__(self, control: Control) -> None:
        """The control plane that answers."""
        self._control = control

    # === reads ===

    async def list(self, _asked: Asked) -> Response:
        """All endpoints."""
        return JSONResponse({"endpoints": await self._control.list()})

    async def get(self, asked: Asked) -> Response:
        """One endpoint."""
        found = await self._control.get(asked.endpoint)
        return JSONResponse(found, headers=_etag(found["revision"]))

    async def traffic(self, asked: Asked) -> Response:
        """Live traffic."""
        found = await self._control.traffic(asked.endpoint)
        return JSONResponse(found, headers=_etag(found["revision"]))

    async def explain(self, asked: Asked) -> Response:
        """Which version and why."""
        body = asked.read(ExplainKey)
        if body.key is not None and body.headers is not None:
            raise InvalidArgument("send either key or headers, not both")
        found = await self._control.explain(
            asked.endpoint, key=body.key, headers=body.headers, at=body.revision
        )
        return JSONResponse(found, headers=_etag(found["revision"]))

    async def revisions(self, asked: Asked) -> Response:
        """History."""
        limit = asked.number("limit", 1, _HISTORY_MAX) or 50
        before = asked.number("before", 1, 10**9)
        found = await self._control.revisions(asked.endpoint, limit=limit, before=before)
        return JSONResponse({"revisions": found})

    async def revision(self, asked: Asked) -> Response:
        """One revision."""
        return JSONResponse(await self._control.revision(asked.endpoint, int(asked.path("n"))))

    async def drift(self, asked: Asked) -> Response:
        """The drift report."""
        written = asked.query("window")
        seconds = None
        if written is not None:
            try:
                seconds = parse_duration(written) // 1000
            except ValueError as error:
                raise InvalidArgument(f"query window: {error}") from None
            if not 1 <= seconds <= _WINDOW_MAX_SECONDS:
                raise InvalidArgument(f"query window: {written!r} is not between 1s and 366d")
        return JSONResponse(await self._control.drift(asked.endpoint, seconds))

    # === writes ===

    async def put(self, asked: Asked) -> Response:
        """Applies a document."""
        call = asked.call(precondition=asked.precondition(creates=True))
        source = asked.query("source")
        if source is not None and not source.startswith("/"):
            raise InvalidArgument(f"query source: {source!r} is not an absolute path")
        take = asked.flag("take_traffic")

        work = self._control.put(
            asked.endpoint,
            asked.body,
            source=None if source is None else Path(source),
            call=call,
            take_traffic=take,
        )
        return await self._answer(asked, call, "apply", work)

    async def delete(self, asked: Asked) -> Response:
        """Takes an endpoint away."""
        call = asked.call(precondition=asked.precondition(creates=False))
        work = self._control.delete(asked.endpoint, force=asked.flag("force"), call=call)
        return await self._answer(asked, call, "remove", work)

    async def patch(self, asked: Asked) -> Response:
        """Overrides live traffic."""
        body = asked.read(TrafficPatch)
        if body.weights is None and body.champion is None:
            raise InvalidArgument(
                'the body asks for nothing: send weights, as {"weights": {"v8": "5%"}}, or champion'
            )
        call = asked.call(body.reason, asked.precondition(creates=False))
        work = self._control.patch_traffic(
            asked.endpoint, weights=body.weights or {}, champion=body.champion, call=call
        )
        return await self._answer(asked, call, "traffic", work)

    async def rollback(self, asked: Asked) -> Response:
        """Emergency."""
        return await self._emergency(asked, "rollback", self._control.rollback)

    async def abort(self, asked: Asked) -> Response:
        """Emergency."""
        return await self._emergency(asked, "abort", self._control.abort)

    async def freeze(self, asked: Asked) -> Response:
        """Emergency."""
        return await self._emergency(asked, "freeze", self._control.freeze)

    async def block(self, asked: Asked) -> Response:
        """Emergency."""
        body = asked.read(Subject)
        call = asked.call(body.reason)
        work = self._control.block(asked.endpoint, _subject(body), call=call)
        return await self._answer(asked, call, "block", work)

    async def unblock(self, asked: Asked) -> Response:
        """Lifts a block."""
        body = asked.read(Subject)
        call = asked.call(body.reason, asked.precondition(creates=False))
        work = self._control.unblock(asked.endpoint, _subject(body), call=call)
        return await self._answer(asked, call, "unblock", work)

    async def unfreeze(self, asked: Asked) -> Response:
        """Lifts a freeze."""
        call = asked.call(asked.read(Plain).reason, asked.precondition(creates=False))
        return await self._answer(asked, call, "unfreeze", self._control.unfreeze(asked.endpoint, call=call))

    async def restore(self, asked: Asked) -> Response:
        """An old revision."""
        body = asked.read(RestoreTo)
        call = asked.call(body.reason, asked.precondition(creates=False))
        work = self._control.restore(asked.endpoint, body.revision, call=call)
        return await self._answer(asked, call, "restore", work)

    async def _emergency(self, asked: Asked, kind: str, act: Emergency) -> Response:
        call = asked.call(asked.read(Plain).reason, ANY)
        return await self._answer(asked, call, kind, _coroutine(act(asked.endpoint, call=call)))

    async def _answer(
        self, asked: Asked, call: Call, kind: str, work: Coroutine[Any, Any, Result]
    ) -> Response:
        """Waits for a write; with ``Prefer: respond-async`` only for a while, then answers with an operation."""
        if not asked.wants_operation() or call.dry_run:
            return written(await work)
        task = asyncio.create_task(work)
        done, _ = await asyncio.wait({task}, timeout=self._control.settings.answer_seconds)
        if done:
            return written(task.result())
        operation = await self._control.operations.adopt(task, asked.endpoint, kind)
        where = {"location": f"/v1/operations/{operation['id']}", "preference-applied": "respond-async"}
        return JSONResponse(operation, 202, where)


def written(result: Result) -> Response:
    """The answer of a write: 201 when it created, the plan alone when it was a dry run."""
    replayed = result.get("replayed", False)
    body = {name: value for name, value in result.items() if name != "replayed"}
    if result["status"] == "planned":
        return JSONResponse(result["plan"])
    created = result["kind"] == "apply" and result["plan"]["base_revision"] is None
    revision = result["revision"]
    headers = {"cache-control": "no-store"} if revision is None else _etag(revision)
    if replayed:
        headers["idempotency-replayed"] = "true"
    return JSONResponse(body, 201 if created else 200, headers)


def _etag(revision: int) -> dict[str, str]:
    return {"etag": f'"{revision}"', "cache-control": "no-store"}


def _subject(body: Subject) -> str:
    if (body.version is None) == (body.digest is None):
        raise InvalidArgument('send either a version, as {"version": "v8"}, or a digest')
    return body.version or body.digest or ""


async def _coroutine(work: Awaitable[Result]) -> Result:
    return await work
