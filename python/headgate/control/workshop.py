"""What every part of the write path needs at hand: store, data plane, tickets, feed, threads, clock.

Not here: decisions. Next: ``writer``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

from headgate.control.calls import Settings
from headgate.control.feed import Feed
from headgate.control.native import DataPlane, slot_arithmetic
from headgate.control.spec import Paths
from headgate.control.tickets import Tickets
from headgate.control.traffic import Fleet
from headgate.errors import Draining, StorageFailed
from headgate.store import Clock, EventRecord, Store, stamp

_log = logging.getLogger(__name__)
_KEY_LIFE = timedelta(hours=24)
T = TypeVar("T")


class Workshop:
    """Shared tools; belongs to one event loop. Everything that blocks goes through :meth:`io`."""

    def __init__(
        self, store: Store, plane: DataPlane, paths: Paths, settings: Settings, clock: Clock
    ) -> None:
        """Starts nothing: threads come with the first :meth:`io`."""
        self.store = store
        self.plane = plane
        self.paths = paths
        self.settings = settings
        self.clock = clock
        self.tickets = Tickets(plane)
        self.feed = Feed()
        self.unsaved = asyncio.Event()
        self._closed = False
        self._set_weights = slot_arithmetic(plane)
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="headgate-control")

    async def io(self, work: Callable[[], T]) -> T:
        """Runs blocking work in a thread; never call the store, hash or fit on the event loop."""
        if self._closed:
            raise Draining("the gateway stops")
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def now(self) -> str:
        """The present time as it is written."""
        return stamp(self.clock())

    def key_expiry(self) -> str:
        """When an idempotency key used now is forgotten."""
        return stamp(self.clock() + _KEY_LIFE)

    def fleet(self, endpoint: str, digests: dict[str, str]) -> Fleet:
        """The surroundings of the pure functions."""
        return Fleet(endpoint, digests, self._set_weights)

    def publish(self, events: Sequence[EventRecord]) -> None:
        """To every reader of the feed."""
        for event in events:
            self.feed.publish(event)

    def retry_later(self) -> None:
        """Wakes the task that writes what could not be written."""
        self.unsaved.set()

    async def alarm(self, endpoint: str | None, revision: int | None, message: str) -> None:
        """Tells people; an alarm that cannot be stored is still told, without an id."""
        _log.error("%s: %s", endpoint or "gateway", message)
        event = EventRecord("alarm", self.now(), endpoint, revision, "headgate", "", {"message": message})
        try:
            event = await self.io(lambda: self.store.add_event(event))
        except StorageFailed:
            _log.exception("the alarm could not be stored")
        self.publish([event])

    async def close(self) -> None:
        """Waits for the threads."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
