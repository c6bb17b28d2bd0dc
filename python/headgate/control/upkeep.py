"""What goes on behind the calls: noting which endpoints are in use, writing late what could not be written, forgetting old records.

Not here: the calls (``service``). Next: ``reads``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping

from headgate.control import reads
from headgate.control.endpoint import EndpointState
from headgate.control.workshop import Workshop
from headgate.control.writer import Writer
from headgate.errors import HeadgateError, StorageFailed

KEPT_EVENTS = 100_000
"""Events that a reader can still catch up with."""
KEPT_OPERATIONS = 1_000
"""Ended operations that can still be read."""
_PRUNE_SECONDS = 3600.0
_log = logging.getLogger(__name__)


class Upkeep:
    """Three loops over all endpoints. None of them ends by a failure: it is logged, and the next turn tries again."""

    def __init__(self, workshop: Workshop, writer: Writer, endpoints: Mapping[str, EndpointState]) -> None:
        """``endpoints`` are all there are, now and later."""
        self._shop = workshop
        self._writer = writer
        self._endpoints = endpoints
        self._loops: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begins the loops."""
        for turn in (self._sample_later, self._write_later, self._prune_at_times):
            self._loops.add(asyncio.create_task(_for_ever(turn)))

    async def close(self) -> None:
        """Ends the loops; idempotent."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops.clear()

    async def flush(self) -> None:
        """Writes what could not be written at its time; :class:`StorageFailed` when the store still cannot.

        All endpoints at once: one whose emergency call loads a model keeps no other waiting.
        """

        async def write(state: EndpointState) -> None:
            async with state.step:
                await self._writer.flush(state)

        writes = [write(state) for state in list(self._endpoints.values()) if state.unsaved]
        for outcome in await asyncio.gather(*writes, return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def sample(self) -> None:
        """Notes which endpoints answered requests since the last look."""
        live = json.loads(await self._shop.io(self._shop.plane.status)).get("endpoints", {})
        for name, state in self._endpoints.items():
            before, state.requests = state.requests, reads.requests_of(live.get(name, {}))
            # Not the sum: it shrinks when a version is unloaded. A version loaded again counts from 0.
            if any(count not in (0, before.get(version)) for version, count in state.requests.items()):
                state.answered = self._shop.store.now()

    async def prune(self) -> None:
        """Forgets the oldest events and ended operations."""
        store = self._shop.store
        await self._shop.io(lambda: store.prune(events=KEPT_EVENTS, operations=KEPT_OPERATIONS))

    async def _sample_later(self) -> None:
        await asyncio.sleep(self._shop.settings.sample_seconds)
        await self.sample()

    async def _write_later(self) -> None:
        await self._shop.unsaved.wait()
        await asyncio.sleep(self._shop.settings.retry_seconds)
        # Cleared first: what comes to be unsaved meanwhile sets it again.
        self._shop.unsaved.clear()
        try:
            await self.flush()
        except BaseException:
            self._shop.unsaved.set()
            raise

    async def _prune_at_times(self) -> None:
        try:
            await self.prune()
        except StorageFailed as error:
            _log.error("old records could not be removed: %s", error.message)
        await asyncio.sleep(_PRUNE_SECONDS)


async def _for_ever(turn: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await turn()
        except HeadgateError as error:
            _log.error("behind the calls: %s", error.message)
        except Exception:
            _log.exception("behind the calls: a defect; it is tried again")
            await asyncio.sleep(1)
