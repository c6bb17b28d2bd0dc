"""What every part of the write path needs at hand: store, data plane, tickets, feed, threads.

Not here: decisions. Next: ``writer``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

from headgate.control.domain.calls import Settings
from headgate.control.domain.traffic import KnownVersions
from headgate.control.writes.data_plane import DataPlane, slot_arithmetic
from headgate.control.writes.feed import Feed
from headgate.control.writes.handover import Paths
from headgate.control.writes.tickets import Tickets
from headgate.errors import Draining, StorageFailed
from headgate.store import EventRecord, Store, stamp

_log = logging.getLogger(__name__)
_KEY_LIFE = timedelta(hours=24)
T = TypeVar("T")


class Context:
    """Shared tools; belongs to one event loop. Everything that blocks goes through :meth:`io`, or :meth:`long`."""

    def __init__(self, store: Store, plane: DataPlane, paths: Paths, settings: Settings) -> None:
        """Starts nothing: threads come with the first use."""
        self.store = store
        self.plane = plane
        self.paths = paths
        self.settings = settings
        self.tickets = Tickets(plane)
        self.feed = Feed()
        self.unsaved = asyncio.Event()
        self._closed = False
        self._stopping = asyncio.Event()
        self._set_weights = slot_arithmetic(plane)
        self._short = ThreadPoolExecutor(settings.threads, thread_name_prefix="headgate-control")
        self._long = ThreadPoolExecutor(settings.model_threads, thread_name_prefix="headgate-models")

    async def io(self, work: Callable[[], T]) -> T:
        """Runs short blocking work in a thread: the store, the data plane, small files."""
        return await self._run(self._short, work)

    async def long(self, work: Callable[[], T]) -> T:
        """Runs work that may take minutes (copying, hashing, inspecting, fitting) where no emergency call waits for it.

        :class:`Draining` as soon as the gateway stops: the work ends in its thread, and nobody takes its result. So it must leave
        nothing behind that a later start does not understand.
        """
        job = asyncio.ensure_future(self._run(self._long, work))
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({job, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
        if job.done():
            return job.result()
        job.cancel()
        raise Draining("the gateway stops; nothing was changed")

    def stop_waiting(self) -> None:
        """Nobody waits for long work any more."""
        self._stopping.set()

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._closed:
            raise Draining("the gateway stops")
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    def now(self) -> str:
        """The present time as it is written."""
        return stamp(self.store.now())

    def key_expiry(self) -> str:
        """When an idempotency key used now is forgotten."""
        return stamp(self.store.now() + _KEY_LIFE)

    def known_versions(self, endpoint: str, digests: dict[str, str]) -> KnownVersions:
        """The surroundings of the pure functions."""
        return KnownVersions(endpoint, digests, self._set_weights)

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
        await self.tell(
            EventRecord("alarm", self.now(), endpoint, revision, "headgate", "", {"message": message})
        )

    async def tell(self, event: EventRecord) -> None:
        """Stores and publishes an event that belongs to no revision."""
        try:
            event = await self.io(lambda: self.store.add_event(event))
        except StorageFailed:
            _log.exception("the event could not be stored: %s", event.type)
        self.publish([event])

    async def close(self) -> None:
        """Waits for the short work that is under way."""
        self._closed = True
        self._long.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._short.shutdown)
