"""What every part of the write path needs at hand: store, data plane, tickets, feed, threads.

Not here: decisions. Next: ``writer``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from headgate.control.domain.calls import Settings
from headgate.control.domain.traffic import KnownVersions
from headgate.control.writes.data_plane import DataPlane, slot_arithmetic
from headgate.control.writes.feed import Feed
from headgate.control.writes.handover import Paths
from headgate.control.writes.plan_facts import Facts, RequestCounts
from headgate.control.writes.threads import Threads, Work
from headgate.control.writes.tickets import Tickets
from headgate.errors import Draining, StorageFailed
from headgate.store import EventRecord, Store, keepable, stamp

_log = logging.getLogger(__name__)
_KEY_LIFE = timedelta(hours=24)
T = TypeVar("T")


class Context:
    """Shared tools; belongs to one event loop. Everything that blocks goes through one of its kinds of threads."""

    def __init__(
        self, store: Store, plane: DataPlane, paths: Paths, settings: Settings, counts: RequestCounts
    ) -> None:
        """Starts nothing: threads come with the first use. ``counts`` knows the requests of the last minutes."""
        self.store = store
        self.plane = plane
        self.paths = paths
        self.settings = settings
        self.facts = Facts(plane, counts)
        self.tickets = Tickets(plane)
        self.feed = Feed()
        self._threads = Threads(settings)
        self._stopping = asyncio.Event()
        self._set_weights = slot_arithmetic(plane)

    def is_stopping(self) -> bool:
        """Whether nothing that may take long is begun any more."""
        return self._stopping.is_set()

    async def io(self, work: Callable[[], T]) -> T:
        """Runs short blocking work in a thread: reads of the store, the data plane, small files."""
        return await self._threads.run(Work.READ, work)

    async def write(self, work: Callable[[], T]) -> T:
        """Runs a write to the store, which may wait for a disk that hangs."""
        return await self._threads.run(Work.WRITE, work)

    async def urgent(self, work: Callable[[], T]) -> T:
        """Runs what an emergency call waits for: nothing else runs there."""
        return await self._threads.run(Work.URGENT, work)

    async def authenticating(self, work: Callable[[], T]) -> T:
        """Runs the look at a caller's token."""
        return await self._threads.run(Work.AUTHENTICATE, work)

    async def behind(self, work: Callable[[], T]) -> T:
        """Runs a write of what took effect before (``write_behind``)."""
        return await self._threads.run(Work.BEHIND, work)

    async def telling(self, work: Callable[[], T]) -> T:
        """Runs what messages to webhooks need of the store and of files."""
        return await self._threads.run(Work.TELL, work)

    async def looking_up(self, work: Callable[[], T]) -> T:
        """Runs the look-up of a host's name, which is not waited for at a stop."""
        return await self._threads.run(Work.LOOK_UP, work)

    async def parsing(self, work: Callable[[], T]) -> T:
        """Runs the reading of a document."""
        return await self._threads.run(Work.PARSE, work)

    async def long(self, work: Callable[[], T]) -> T:
        """Runs work that may take minutes (copying, hashing, inspecting, fitting) where no emergency call waits for it.

        :class:`Draining` as soon as the gateway stops: the work ends in its thread, and nobody takes its result. So it must leave
        nothing behind that a later start does not understand.
        """
        job = asyncio.ensure_future(self._threads.run(Work.MODEL, work))
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

    async def alarm(self, endpoint: str | None, revision: int | None, message: str) -> None:
        """Tells people; an alarm that cannot be stored is still told, without an id."""
        _log.error("%s: %s", endpoint or "gateway", message)
        data = {"message": keepable(message)}
        await self.tell(EventRecord("alarm", self.now(), endpoint, revision, "headgate", "", data))

    async def tell(self, event: EventRecord) -> None:
        """Stores and publishes an event that belongs to no revision; a disk that hangs keeps it from nobody."""
        try:
            async with asyncio.timeout(self.settings.durable_seconds):
                event = await self.write(lambda: self.store.add_event(event))
        except (StorageFailed, TimeoutError):
            _log.exception("the event could not be stored: %s", event.type)
        self.publish([event])

    def refuse_reads(self) -> None:
        """Who asks now is told that the gateway stops."""
        self._threads.refuse(Work.READ, Work.PARSE)

    async def close(self, patience_seconds: float) -> bool:
        """Whether the short work that is under way has ended in time."""
        return await self._threads.close(patience_seconds)
