"""The Starlette app of the admin port: the table of calls behind the guard.

Not here: sockets and the server (``gateway``). Next: ``openapi``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import anyio.to_thread
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from headgate.admin.admin_request import (
    DOCUMENT_TYPES,
    JSON_TYPES,
    AdminRequest,
    check_content_coding,
    check_content_type,
    principal_of,
    read_body,
)
from headgate.admin.callers import Callers
from headgate.admin.guard import Guard, Problems, on_http_exception, refuse
from headgate.admin.notify import notify_calls
from headgate.admin.openapi import describe
from headgate.admin.paths import Paths
from headgate.admin.table import ApiCall, Handlers, calls
from headgate.admin.tokens import Tokens
from headgate.control import Call, Control, Recorder
from headgate.errors import HeadgateError, InvalidArgument, PermissionDenied, Unsupported


class _Name(Convertor[str]):
    """The name of an endpoint or a plan in a path: no colon, so that ``digits:rollback`` is an action and not a name."""

    regex = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Revision(Convertor[int]):
    """The number of a revision: of so many digits as Python turns into a number at any time."""

    regex = "[0-9]{1,100}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("endpoint_name", _Name())
register_url_convertor("revision", _Revision())
_PARAMETERS = {
    "{endpoint}": "{endpoint:endpoint_name}",
    "{name}": "{name:endpoint_name}",
    "{n}": "{n:revision}",
}


def create_app(control: Control, tokens: Tokens, *, hosts: Sequence[str] = ()) -> Starlette:
    """The app. ``hosts`` are the names beside loopback that callers may use."""
    table = [*calls(Handlers.of(control, tokens)), *notify_calls(control)]
    described_calls = list(table)
    description = functools.cache(lambda: describe(described_calls))

    async def openapi(_asked: AdminRequest) -> ASGIApp:
        # Made when somebody asks: it takes a third of a second that a start should not wait for, nor the event loop.
        return JSONResponse(await anyio.to_thread.run_sync(description))

    table.append(ApiCall("GET", "/openapi.json", "viewer", openapi, dict, "This description."))
    by_path: dict[str, dict[str, ApiCall]] = {}
    for call in table:
        by_path.setdefault(call.path, {})[call.method] = call
    routes = [
        Route(_with_types(path), _Dispatch(methods, control.audit_log)) for path, methods in by_path.items()
    ]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(Problems),
            Middleware(Guard, callers=Callers(control, tokens), hosts=hosts),
            Middleware(Paths),
        ],
        exception_handlers={HTTPException: on_http_exception},
    )
    app.router.redirect_slashes = False
    return app


class _Dispatch:
    """The calls of one path: method, role, query and content type, then the handler."""

    def __init__(self, methods: dict[str, ApiCall], audit: Recorder) -> None:
        self._methods = methods
        self._audit = audit
        if "GET" in methods and methods["GET"].answer != "text/event-stream":
            self._methods = {**methods, "HEAD": methods["GET"]}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        call = self._methods.get(request.method)
        if call is None:
            error = Unsupported(f"{request.method} is not a method of {request.url.path}")
            await refuse(error, status=405, allow=list(self._methods))(scope, receive, send)
            return
        try:
            answer = await call.handler(await _check(request, call))
        except HeadgateError as error:
            await self._refused(request, call, error)
            raise
        await answer(scope, receive, send)

    async def _refused(self, request: Request, call: ApiCall, error: HeadgateError) -> None:
        """What control has not recorded itself: of reads, only that somebody may not read."""
        if not (call.changes or isinstance(error, PermissionDenied)):
            return
        who = principal_of(request)
        dry_run = request.query_params.get("dry_run") == "true" and not isinstance(error, PermissionDenied)
        refused = Call(who.name, who.role, who.id, dry_run=dry_run)
        await self._audit.refused(refused, (call.action, request.path_params.get("endpoint")), error)


async def _check(request: Request, call: ApiCall) -> AdminRequest:
    principal = principal_of(request)
    if not principal.may(call.role):
        raise PermissionDenied(
            f"this call needs the role {call.role}; token {principal.name!r} has {principal.role}"
        )
    if any("\0" in part for item in request.query_params.multi_items() for part in item):
        raise InvalidArgument("the query has a NUL (%00), which no name, path or reason has")
    unknown = sorted(set(request.query_params) - set(call.query))
    if unknown:
        known = ", ".join(call.query) or "none"
        raise InvalidArgument(f"query {', '.join(unknown)}: not known here; this call takes {known}")
    check_content_coding(request)
    body = b""
    if call.takes != "nothing":
        check_content_type(request, DOCUMENT_TYPES if call.takes == "document" else JSON_TYPES)
        body = await read_body(request)
    return AdminRequest(request, principal, body)


def _with_types(path: str) -> str:
    for plain, typed in _PARAMETERS.items():
        path = path.replace(plain, typed)
    return path
