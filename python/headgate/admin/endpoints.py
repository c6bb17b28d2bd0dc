"""The calls about endpoints: read, apply, traffic, emergency calls, history.

Not here: what they mean (``control``), which role they need (``table``). Next: ``rest``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse, Response

from headgate.admin.admin_request import AdminRequest
from headgate.admin.answers import answered, as_coroutine, etag
from headgate.admin.bodies import ExplainRequest, ReasonBody, RestoreTo, Subject, TrafficPatch
from headgate.control import ANY, Call, Control, Result
from headgate.control.domain.copies import Switches
from headgate.control.reads.explanation import HypotheticalRequest
from headgate.documents import parse_duration
from headgate.documents.faults import quoted
from headgate.errors import InvalidArgument
from headgate.store.clock import unstamp

_HISTORY_MAX = 500
_WINDOW_MAX_SECONDS = 366 * 86_400
Emergency = Callable[..., Awaitable[Result]]


class Endpoints:
    """Handlers around one control plane."""

    def __init__(self, control: Control) -> None:
        """The control plane that answers."""
        self._control = control

    # === reads ===

    async def list(self, _asked: AdminRequest) -> Response:
        """All endpoints."""
        return JSONResponse({"endpoints": await self._control.list()})

    async def get(self, request: AdminRequest) -> Response:
        """One endpoint."""
        found = await self._control.get(request.endpoint)
        return JSONResponse(found, headers=etag(found["revision"]))

    async def traffic(self, request: AdminRequest) -> Response:
        """Live traffic."""
        found = await self._control.traffic(request.endpoint)
        return JSONResponse(found, headers=etag(found["revision"]))

    async def explain(self, request: AdminRequest) -> Response:
        """Which version and why."""
        body = request.read(ExplainRequest)
        if body.key is not None and body.headers is not None:
            raise InvalidArgument("send either key or headers, not both")
        if body.revision is not None and body.at is not None:
            raise InvalidArgument("send either revision or at, not both")
        at = body.revision if body.at is None else _time(body.at)
        hypothetical = HypotheticalRequest(body.key, body.headers, body.parameters, body.version)
        found = await self._control.explain(request.endpoint, hypothetical, at=at)
        return JSONResponse(found, headers=etag(found["revision"]))

    async def revisions(self, request: AdminRequest) -> Response:
        """History."""
        limit = request.number("limit", 1, _HISTORY_MAX) or 50
        before = request.number("before", 1, 10**9)
        found = await self._control.revisions(request.endpoint, limit=limit, before=before)
        return JSONResponse({"revisions": found})

    async def revision(self, request: AdminRequest) -> Response:
        """One revision."""
        return JSONResponse(await self._control.revision(request.endpoint, int(request.path("n"))))

    async def drift(self, request: AdminRequest) -> Response:
        """The drift report."""
        written = request.query("window")
        seconds = None
        if written is not None:
            try:
                seconds = parse_duration(written) // 1000
            except ValueError as error:
                raise InvalidArgument(f"query window: {error}") from None
            if not 1 <= seconds <= _WINDOW_MAX_SECONDS:
                raise InvalidArgument(f"query window: {written!r} is not between 1s and 366d")
        return JSONResponse(await self._control.drift(request.endpoint, seconds))

    async def trial(self, request: AdminRequest) -> Response:
        """The evidence of the trial."""
        return JSONResponse(await self._control.trial(request.endpoint))

    async def shadows(self, request: AdminRequest) -> Response:
        """The report on the shadows."""
        return JSONResponse(
            await self._control.shadows(request.endpoint), headers={"cache-control": "no-store"}
        )

    # === writes ===

    async def put(self, request: AdminRequest) -> Response:
        """Applies a document."""
        call = request.call(precondition=request.precondition(creates=True))
        source = request.query("source")
        if source is not None and not source.startswith("/"):
            raise InvalidArgument(f"query source: {source!r} is not an absolute path")
        take = request.flag("take_traffic")
        work = self._control.put(
            request.endpoint,
            request.body,
            source=None if source is None else Path(source),
            call=call,
            take_traffic=take,
            with_plans=request.plans_before(),
        )
        return await self._answer(request, call, "apply", work)

    async def delete(self, request: AdminRequest) -> Response:
        """Takes an endpoint away."""
        call = request.call(precondition=request.precondition(creates=False))
        work = self._control.delete(request.endpoint, force=request.flag("force"), call=call)
        return await self._answer(request, call, "remove", work)

    async def patch(self, request: AdminRequest) -> Response:
        """Overrides live traffic."""
        body = request.read(TrafficPatch)
        if all(asked is None for asked in (body.weights, body.champion, body.shadows, body.capture)):
            raise InvalidArgument(
                'the body asks for nothing: send weights, as {"weights": {"v8": "5%"}}, champion, shadows, as '
                '{"shadows": {"v8": "off"}}, or capture'
            )
        call = request.call(body.reason, request.precondition(creates=False))
        switches = Switches(
            {name: switch == "on" for name, switch in (body.shadows or {}).items()},
            None if body.capture is None else body.capture == "on",
        )
        work = self._control.patch_traffic(
            request.endpoint,
            weights=body.weights or {},
            champion=body.champion,
            switches=switches,
            call=call,
        )
        return await self._answer(request, call, "traffic", work)

    async def rollback(self, request: AdminRequest) -> Response:
        """Emergency."""
        return await self._emergency(request, "rollback", self._control.rollback)

    async def abort(self, request: AdminRequest) -> Response:
        """Emergency."""
        return await self._emergency(request, "abort", self._control.abort)

    async def freeze(self, request: AdminRequest) -> Response:
        """Emergency."""
        return await self._emergency(request, "freeze", self._control.freeze)

    async def block(self, request: AdminRequest) -> Response:
        """Emergency."""
        body = request.read(Subject)
        call = request.call(body.reason)
        work = self._control.block(request.endpoint, _subject(body), call=call)
        return await self._answer(request, call, "block", work)

    async def unblock(self, request: AdminRequest) -> Response:
        """Lifts a block."""
        body = request.read(Subject)
        call = request.call(body.reason, request.precondition(creates=False))
        work = self._control.unblock(request.endpoint, _subject(body), call=call)
        return await self._answer(request, call, "unblock", work)

    async def unfreeze(self, request: AdminRequest) -> Response:
        """Lifts a freeze."""
        call = request.call(request.read(ReasonBody).reason, request.precondition(creates=False))
        return await self._answer(
            request, call, "unfreeze", self._control.unfreeze(request.endpoint, call=call)
        )

    async def restore(self, request: AdminRequest) -> Response:
        """An old revision; of an endpoint that was removed too."""
        body = request.read(RestoreTo)
        call = request.call(body.reason, request.precondition(creates=True))
        work = self._control.restore(request.endpoint, body.revision, call=call)
        return await self._answer(request, call, "restore", work)

    async def _emergency(self, request: AdminRequest, kind: str, act: Emergency) -> Response:
        call = request.call(request.read(ReasonBody).reason, ANY)
        return await self._answer(request, call, kind, as_coroutine(act(request.endpoint, call=call)))

    async def _answer(
        self, request: AdminRequest, call: Call, kind: str, work: Coroutine[Any, Any, Result]
    ) -> Response:
        return await answered(self._control, request, call, kind, work)


def _subject(body: Subject) -> str:
    if (body.version is None) == (body.digest is None):
        raise InvalidArgument('send either a version, as {"version": "v8"}, or a digest')
    return body.version or body.digest or ""


def _time(written: str) -> datetime:
    """A time with its zone; :class:`InvalidArgument` for anything else."""
    try:
        when = unstamp(written).astimezone(UTC)
        if when.year < 1970:
            raise ValueError("it is before any store")
        return when
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f'at: {quoted(written)} is no time with a zone: write it as "2027-03-01T03:12:04Z"'
        ) from None
