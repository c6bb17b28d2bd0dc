"""Paths as the routes see them: escapes are decoded once, and an escaped slash parts no segments.

Not here: which routes there are (``table``). Next: ``app``.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from headgate.errors import InvalidArgument

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2}).{0,2}", re.DOTALL)
_SLASH = re.compile(rb"%2[Ff]")


def decoded(raw: bytes) -> str:
    """A raw path, decoded; :class:`InvalidArgument` for a bad escape. ``%2F`` stays: no name has a slash."""
    bad = _BAD_ESCAPE.search(raw)
    if bad is not None:
        raise InvalidArgument(
            f"the path has {bad[0].decode('latin-1')!r}; an escape is % and two hexadecimal digits, such as %20"
        )
    try:
        path = unquote_to_bytes(_SLASH.sub(b"%252F", raw)).decode()
    except UnicodeDecodeError:
        raise InvalidArgument("the escapes of the path are not UTF-8") from None
    if "\0" in path:
        raise InvalidArgument("the path has a NUL (%00), which no name has")
    return path


class Paths:
    """The layer that decodes: a server decodes before it parts, so that an escaped slash would part segments."""

    def __init__(self, app: ASGIApp) -> None:
        """Around ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        raw = scope.get("raw_path") or b""
        if scope["type"] == "http" and b"%" in raw:
            scope = {**scope, "path": decoded(raw.partition(b"?")[0])}
        await self._app(scope, receive, send)
