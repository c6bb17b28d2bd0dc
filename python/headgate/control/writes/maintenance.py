"""What goes on behind the calls: noting which endpoints are in use, writing late what could not be written, forgetting old records.

Not here: the calls (``service``). Next: ``reads``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from headgate.background import Background
from headgate.control.writes.context import Context
from headgate.control.writes.data_plane import requests_of
from headgate.control.writes.endpoint import EndpointState
from headgate.control.writes.writer import Writer

KEPT_EVENTS = 100_000
"""Events that a reader can still catch up with."""
KEPT_OPERATIONS = 1_000
"""Ended operations that can still be read."""
_PRUNE_SECONDS = 3600.0


class Maintenance:
    """Three loops over all endpoints."""

    def __init__(self, context: Context, writer: Writer, endpoints: Mapping[str, EndpointState]) -> None:
        """``endpoints`` are all there are, now and later."""
        self._context = context
        self._writer = writer
        self._endpoints = endpoints

    def start(self, background: Background) -> None:
        """Begins the loops."""
        background.run("sample_requests", self.sample, self._context.settings.sample_seconds)
        background.run("write_unsaved", self._write_later)
        background.run("prune_records", self.prune, _PRUNE_SECONDS)

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
        live = json.loads(await self._context.io(self._context.plane.status)).get("endpoints", {})
        for name, state in self._endpoints.items():
            before, state.requests = state.requests, requests_of(live.get(name, {}))
            # Not the sum: it shrinks when a version is unloaded. A version loaded again counts from 0.
            if any(count not in (0, before.get(version)) for version, count in state.requests.items()):
                state.answered = self._context.store.now()

    async def prune(self) -> None:
        """Forgets the oldest events and ended operations."""
        store = self._context.store
        await self._context.io(lambda: store.prune(events=KEPT_EVENTS, operations=KEPT_OPERATIONS))

    async def _write_later(self) -> None:
        await self._context.unsaved.wait()
        await asyncio.sleep(self._context.settings.retry_seconds)
        # Cleared first: what comes to be unsaved meanwhile sets it again.
        self._context.unsaved.clear()
        try:
            await self.flush()
        except BaseException:
            self._context.unsaved.set()
            raise
