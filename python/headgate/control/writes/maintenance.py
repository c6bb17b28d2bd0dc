"""What goes on behind the calls: noting which endpoints are in use, forgetting old records.

Not here: the calls (``service``). Next: ``collection``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from headgate.background import Background
from headgate.control.writes.collection import Collection
from headgate.control.writes.context import Context
from headgate.control.writes.data_plane import requests_of
from headgate.control.writes.endpoint import EndpointState

KEPT_EVENTS = 100_000
"""Events that a reader can still catch up with."""
KEPT_OPERATIONS = 1_000
"""Ended operations that can still be read."""
_PRUNE_SECONDS = 3600.0


class Maintenance:
    """The loops over all endpoints."""

    def __init__(self, context: Context, endpoints: Mapping[str, EndpointState]) -> None:
        """``endpoints`` are all there are, now and later."""
        self._context = context
        self._endpoints = endpoints
        self.collection = Collection(context, endpoints)

    def start(self, background: Background) -> None:
        """Begins the loops."""
        background.run("sample_requests", self.sample, self._context.settings.sample_seconds)
        background.run("prune_records", self.prune, _PRUNE_SECONDS)
        background.run("collect_unreferenced", self.collection.turn)

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
        await self._context.write(lambda: store.prune(events=KEPT_EVENTS, operations=KEPT_OPERATIONS))
