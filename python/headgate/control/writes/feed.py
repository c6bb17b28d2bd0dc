"""The live feed of events: bounded queues, one per reader, with replay from the store.

Not here: the SSE form (``admin.stream``). Next: ``admin``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from headgate.store import EventRecord

BACKLOG = 1000
"""Events a reader may fall behind before it is cut off; it comes back with its last id and loses nothing."""

Replay = Callable[[int], Awaitable[list[EventRecord]]]


class Feed:
    """Hands each event to each reader. Belongs to one event loop."""

    def __init__(self) -> None:
        """Without readers."""
        self._readers: set[asyncio.Queue[EventRecord | None]] = set()
        self._listeners: list[Callable[[EventRecord], None]] = []
        self._closed = False

    def listen(self, listener: Callable[[EventRecord], None]) -> None:
        """Has a part of the control plane see each event once, as it is published. It must not wait, and must not raise."""
        self._listeners.append(listener)

    def publish(self, event: EventRecord) -> None:
        """Never waits: a reader that is full is cut off."""
        for listener in self._listeners:
            listener(event)
        for queue in list(self._readers):
            if queue.qsize() >= BACKLOG:
                self._readers.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    def close(self) -> None:
        """Ends every reader after what it has not read yet; new readers end at once."""
        self._closed = True
        for queue in self._readers:
            queue.put_nowait(None)
        self._readers.clear()

    async def read(
        self, after: int | None, replay: Replay, newest: Callable[[], Awaitable[int]]
    ) -> AsyncIterator[EventRecord]:
        """Events from now on; with ``after`` those with larger generations first, read page by page by ``replay``.

        An ``after`` above the ``newest`` generation comes from another state folder, and counts as the newest.
        """
        queue: asyncio.Queue[EventRecord | None] = asyncio.Queue()
        if not self._closed:
            self._readers.add(queue)
        else:
            queue.put_nowait(None)
        try:
            cursor = None if after is None else min(after, await newest())
            while cursor is not None:
                page = await replay(cursor)
                for event in page:
                    yield event
                if not page:
                    break
                cursor = page[-1].generation
            while (live := await queue.get()) is not None:
                if live.generation == 0 or cursor is None or live.generation > cursor:
                    yield live
        finally:
            self._readers.discard(queue)
