"""The event streams that are open, by the token that opened them: they end with it.

Revoked here, a token ends its streams at once. Expired, or revoked on the state folder, it ends them at their next keep-alive.
Not here: a stream itself (``stream``). Next: ``rest``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from headgate.admin.stream import KEEP_ALIVE_SECONDS, EventStream, every_tick
from headgate.admin.tokens import Tokens
from headgate.errors import StorageFailed
from headgate.store import EventRecord


class OpenStreams:
    """Belongs to one event loop."""

    def __init__(
        self,
        tokens: Tokens,
        keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
        next_tick: Callable[[], Coroutine[Any, Any, None]] = every_tick,
    ) -> None:
        """``tokens`` say which are good still; ``next_tick`` returns when a stream's next tick is due."""
        self._tokens = tokens
        self._keep_alive_seconds = keep_alive_seconds
        self._next_tick = next_tick
        self._open: dict[str, set[EventStream]] = {}

    def answer(self, token_id: str, events: AsyncIterator[EventRecord], endpoint: str | None) -> ASGIApp:
        """The answer that streams ``events`` for as long as the token is good."""

        async def is_allowed() -> bool:
            try:
                return await asyncio.to_thread(self._tokens.is_usable, token_id)
            except StorageFailed:
                return True  # A disk that fails for a moment is no reason to end what was allowed.

        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            stream = EventStream(events, endpoint, self._keep_alive_seconds, is_allowed, self._next_tick)
            streams = self._open.setdefault(token_id, set())
            streams.add(stream)
            try:
                await stream(scope, receive, send)
            finally:
                streams.discard(stream)
                if not streams:
                    self._open.pop(token_id, None)

        return run

    def end(self, token_id: str) -> None:
        """Ends the streams of a token."""
        for stream in self._open.get(token_id, ()):
            stream.end()
