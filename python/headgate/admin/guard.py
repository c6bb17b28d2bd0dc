"""The two layers around every route: errors become problems, and nobody passes without the right Host, Origin and token.

Not here: which role a call needs (``app``). Next: ``admin_request``.

``Host`` is checked against DNS rebinding, ``Origin`` against pages of other sites; both before the token is looked at.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headgate.admin.callers import Callers
from headgate.control.domain.problems import problem, status_of
from headgate.errors import (
    HeadgateError,
    Internal,
    InvalidArgument,
    Misdirected,
    NotFound,
    PermissionDenied,
    StorageFailed,
    Unauthenticated,
    is_out_of_descriptors,
)

_log = logging.getLogger(__name__)
RETRY_AFTER_SECONDS = 1
PRINCIPAL = "headgate.principal"
"""Where the guard leaves the caller in ``scope``."""
_HOST = re.compile(r"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]*")
"""The characters of host and port (RFC 3986, 3.2.2), as the data port takes them."""


def refuse(error: HeadgateError, *, status: int | None = None, allow: Sequence[str] = ()) -> Response:
    """An error as ``application/problem+json`` with the headers its status asks for."""
    code = status or status_of(error.code)
    headers = {"cache-control": "no-store"}
    if code == 401:
        headers["www-authenticate"] = "Bearer"
    if code == 503:
        headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    if allow:
        headers["allow"] = ", ".join(sorted(allow))
    return JSONResponse(problem(error, code), code, headers, "application/problem+json")


async def on_http_exception(_request: Request, error: Exception) -> Response:
    """What routing itself refuses: a path that does not exist."""
    if isinstance(error, HTTPException) and error.status_code == 404:
        return refuse(NotFound("there is no such path; see /openapi.json"))
    return refuse(InvalidArgument(str(error)))


class Problems:
    """The outermost layer: whatever is raised becomes a problem, unless an answer has begun."""

    def __init__(self, app: ASGIApp) -> None:
        """Around ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except HeadgateError as error:
            if begun:
                raise
            await refuse(error)(scope, receive, send)
        except Exception as error:
            told = _told(error)
            _log.exception("%s %s failed: %s", scope["method"], scope["path"], told.message)
            if begun:
                raise
            await refuse(told)(scope, receive, send)


def _told(error: Exception) -> HeadgateError:
    """What a caller is told of an exception that nothing else has translated."""
    if isinstance(error, OSError) and is_out_of_descriptors(error):
        return StorageFailed(
            "the gateway has no file descriptors left: raise its limit on open files, or try again"
        )
    return Internal("the call failed by a defect of Headgate; its log says more")


class Guard:
    """Host, Origin, token; leaves the principal in the scope."""

    def __init__(self, app: ASGIApp, callers: Callers, hosts: Sequence[str]) -> None:
        """``hosts`` are names, with or without a port, that callers may use beside loopback."""
        self._app = app
        self._callers = callers
        names = {host.lower() for host in hosts}
        # An IPv6 address is written in brackets and compared without them.
        self._hosts = names | {host_name(name) for name in names if name.endswith("]")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) > 1:
            raise InvalidArgument("Host is given twice")
        if not all(map(_HOST.fullmatch, hosts)):
            raise InvalidArgument("Host is not a host and a port")
        host = headers.get("host", "").lower()
        self._check_host(host)
        try:
            _check_origin(headers.getlist("origin"), host)
            scope[PRINCIPAL] = await self._callers.principal(_bearer(headers.getlist("authorization")))
        except (PermissionDenied, Unauthenticated) as error:
            client = scope.get("client")
            await self._callers.refused(str(client[0]) if client else "unknown", error)
            raise
        await self._app(scope, receive, send)

    def _check_host(self, host: str) -> None:
        name = host_name(host)
        if host not in self._hosts and name not in self._hosts and not is_loopback(name):
            raise Misdirected(
                f"Host {host!r} is not this gateway: call it by a loopback name, or start it with --admin-host {name}"
            )


def host_name(host: str) -> str:
    """``Host`` without its port; ``[::1]:8003`` gives ``::1``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_loopback(name: str) -> bool:
    """``localhost``, 127.0.0.0/8 or ::1."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _check_origin(origins: list[str], host: str) -> None:
    for origin in origins:
        try:
            parts = urlsplit(origin)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or parts.netloc.lower() != host:
            raise PermissionDenied(f"Origin {origin!r} is another site: this API answers no page but its own")


def _bearer(values: list[str]) -> str:
    if len(values) != 1:
        raise Unauthenticated("send one Authorization: Bearer header with a token (headgate token create)")
    scheme, _, text = values[0].partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise Unauthenticated("send Authorization: Bearer headgate_...")
    return text.strip()
