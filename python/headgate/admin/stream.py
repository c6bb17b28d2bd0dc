"""Server-sent events (WHATWG HTML, section 9.2): one answer that goes on until the reader leaves or the gateway stops.

Not here: what is sent (``control.feed``), which streams a token has (``open_streams``). Next: ``open_streams``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from starlette.types import Receive, Scope, Send

from headgate.control.reads.views import EventView
from headgate.store import EventRecord, seconds

KEEP_ALIVE_SECONDS = 15.0
"""How often it is asked whether the reader is still allowed."""
TICK_SECONDS = 5.0
TICK = b'event: tick\ndata: {"type": "tick"}\n\n'
"""An event, because a browser's ``EventSource`` does not show comments; without an id, so that the reader keeps its last one."""
_HEAD = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


async def every_tick() -> None:
    """Returns when the next tick is due."""
    await asyncio.sleep(TICK_SECONDS)


def view(event: EventRecord) -> EventView:
    """The JSON of an event."""
    return EventView(
        id=event.generation or None,
        type=event.type,
        when=seconds(event.when),
        endpoint=event.endpoint,
        revision=event.revision,
        who=event.who,
        reason=event.reason,
        data=event.data,
    )


def encode(event: EventRecord) -> bytes:
    """The wire form; an event that was never stored has no id, so that the reader keeps its last one."""
    lines = [f"id: {event.generation}"] if event.generation else []
    lines += [f"event: {event.type}", f"data: {json.dumps(view(event), ensure_ascii=False)}"]
    return ("\n".join(lines) + "\n\n").encode()


class EventStream:
    """An ASGI answer that writes events as they come, and ticks."""

    def __init__(
        self,
        events: AsyncIterator[EventRecord],
        endpoint: str | None,
        keep_alive_seconds: float,
        is_allowed: Callable[[], Awaitable[bool]],
        next_tick: Callable[[], Coroutine[Any, Any, None]] = every_tick,
    ) -> None:
        """Only events of ``endpoint``, when one is named. It is asked again and again whether the reader is still allowed."""
        self._events = events
        self._endpoint = endpoint
        self._keep_alive_seconds = keep_alive_seconds
        self._is_allowed = is_allowed
        self._next_tick = next_tick
        self._ended = asyncio.Event()

    def end(self) -> None:
        """Ends it now."""
        self._ended.set()

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Ends with the events, when the reader leaves, or when it is not allowed any more."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEAD})
        await send({"type": "http.response.body", "body": b": open\n\n", "more_body": True})
        gone = asyncio.ensure_future(_disconnected(receive))
        writer = asyncio.ensure_future(self._write(send))
        refused = asyncio.ensure_future(self._refused())
        try:
            await asyncio.wait({gone, writer, refused}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, writer, refused):
                task.cancel()
            # Not awaited itself: its cancellation could not be told from the one of this task.
            await asyncio.wait({writer})
        if not writer.cancelled():
            writer.result()
        if not gone.done() or gone.cancelled():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _refused(self) -> None:
        """Returns when it was ended, or when the reader is not allowed any more."""
        while not self._ended.is_set():
            # Not wait_for: in Python 3.11 it may swallow that the task is cancelled.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._keep_alive_seconds):
                    await self._ended.wait()
                return
            if not await self._is_allowed():
                return

    async def _write(self, send: Send) -> None:
        following = asyncio.ensure_future(anext(self._events, None))
        tick = asyncio.ensure_future(self._next_tick())
        try:
            while True:
                await asyncio.wait({following, tick}, return_when=asyncio.FIRST_COMPLETED)
                if tick.done():
                    tick.result()
                    await send({"type": "http.response.body", "body": TICK, "more_body": True})
                    tick = asyncio.ensure_future(self._next_tick())
                if not following.done():
                    continue
                event = following.result()
                if event is None:
                    return
                if self._endpoint in (None, event.endpoint):
                    await send({"type": "http.response.body", "body": encode(event), "more_body": True})
                following = asyncio.ensure_future(anext(self._events, None))
        finally:
            following.cancel()
            tick.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
