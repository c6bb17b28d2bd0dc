"""The calls about everything but endpoints: models, events, audit, operations, tokens.

Not here: calls about endpoints (``endpoints``). Next: ``table``.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from headgate.admin.admin_request import AdminRequest
from headgate.admin.bodies import NewToken
from headgate.admin.open_streams import OpenStreams
from headgate.admin.stream import encode
from headgate.admin.tokens import Tokens
from headgate.control import Control
from headgate.documents import parse_duration
from headgate.errors import InvalidArgument

_AUDIT_MAX = 1000
_OPERATIONS_MAX = 1000
_EVENTS_MAX = 10_000


class Rest:
    """Handlers around one control plane and its tokens."""

    def __init__(self, control: Control, tokens: Tokens) -> None:
        """The objects that answer."""
        self._control = control
        self._tokens = tokens
        self._streams = OpenStreams(tokens)

    async def models(self, _asked: AdminRequest) -> Response:
        """Pins and refusals."""
        return JSONResponse(await self._control.models())

    async def unpin(self, request: AdminRequest) -> Response:
        """Lets a version's name stand for other bytes."""
        call = request.call()
        return JSONResponse(await self._control.unpin(request.endpoint, request.path("version"), call=call))

    async def events(self, request: AdminRequest) -> ASGIApp:
        """The event stream; with ``follow=false`` only what is stored."""
        said = request.http.headers.get("last-event-id")
        if said is not None and not (said.isascii() and said.isdigit() and len(said) <= 18):
            raise InvalidArgument(f"Last-Event-ID: {said!r} is not the id of an event")
        after = None if said is None else int(said)
        await self._control.check_cursor(after)
        limit, endpoint = request.number("limit", 1, _EVENTS_MAX), request.query("endpoint")
        if request.flag("follow", default=True):
            if limit is not None:
                raise InvalidArgument("query limit: it goes with follow=false; what is followed has no end")
            return self._streams.answer(request.principal.id, self._control.events(after), endpoint)
        stored = await self._control.stored_events(after or 0, limit=limit or _EVENTS_MAX, endpoint=endpoint)
        return Response(b"".join(map(encode, stored)), media_type="text/event-stream")

    async def audit(self, request: AdminRequest) -> Response:
        """The audit."""
        limit = request.number("limit", 1, _AUDIT_MAX) or 100
        before = request.number("before", 1, 10**18)
        entries = await self._control.audit(endpoint=request.query("endpoint"), limit=limit, before=before)
        return JSONResponse({"entries": entries})

    async def operations(self, request: AdminRequest) -> Response:
        """Operations, newest first."""
        limit = request.number("limit", 1, _OPERATIONS_MAX) or 50
        return JSONResponse({"operations": await self._control.operations.list(limit)})

    async def operation(self, request: AdminRequest) -> Response:
        """One operation."""
        found = await self._control.operations.get(request.path("id"))
        headers = {"retry-after": "1"} if found["status"] == "running" else None
        return JSONResponse(found, headers=headers)

    async def tokens(self, _asked: AdminRequest) -> Response:
        """All tokens."""
        return JSONResponse({"tokens": await self._control.reading(self._tokens.list)})

    async def create_token(self, request: AdminRequest) -> Response:
        """A new token; its secret is in this answer and nowhere else, so a key cannot replay it."""
        if request.http.headers.get("idempotency-key") is not None:
            raise InvalidArgument(
                "Idempotency-Key: a secret is never stored, so this call cannot be replayed"
            )
        body = request.read(NewToken)
        seconds, call = None, request.call(body.reason)
        if body.expires_in is not None:
            try:
                seconds = parse_duration(body.expires_in) // 1000
            except ValueError as error:
                raise InvalidArgument(f"expires_in: {error}") from None
        token, secret = await self._control.storing(
            lambda: self._tokens.create(name=body.name, role=body.role, expires_seconds=seconds, by=call)
        )
        made: dict[str, Any] = {**token, "secret": secret}
        return JSONResponse(made, 201, {"cache-control": "no-store"})

    async def revoke_token(self, request: AdminRequest) -> Response:
        """Ends a token, and the event streams that it opened."""
        token, by, force = request.path("id"), request.call(), request.flag("force")
        revoked = await self._control.storing(lambda: self._tokens.revoke(token, by, force=force))
        self._streams.end(token)
        return JSONResponse(revoked)

    async def whoami(self, request: AdminRequest) -> Response:
        """Who the caller is."""
        who = request.principal
        return JSONResponse({"name": who.name, "role": who.role, "token": who.id})
