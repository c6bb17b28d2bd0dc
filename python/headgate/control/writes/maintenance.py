"""What goes on behind the calls: noting which endpoints are in use, forgetting old records, removing files.

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
from headgate.control.writes.plan_facts import memory_of
from headgate.control.writes.retention import Retention


class Maintenance:
    """The loops over all endpoints."""

    def __init__(self, context: Context, endpoints: Mapping[str, EndpointState]) -> None:
        """``endpoints`` are all there are, now and later."""
        self._context = context
        self._endpoints = endpoints
        self.collection = Collection(context, endpoints)
        self.retention = Retention(context, endpoints)

    def start(self, background: Background) -> None:
        """Begins the loops."""
        background.run("sample_requests", self.sample, self._context.settings.sample_seconds)
        background.run("drop_old_records", self.retention.turn)
        background.run("collect_unreferenced", self.collection.turn)

    async def sample(self) -> None:
        """Notes which endpoints answered requests since the last look."""
        live = json.loads(await self._context.io(self._context.plane.status)).get("endpoints", {})
        for name, state in self._endpoints.items():
            before, state.requests = state.requests, requests_of(live.get(name, {}))
            state.memory = memory_of(live.get(name, {}))
            # Not the sum: it shrinks when a version is unloaded. A version loaded again counts from 0.
            if any(count not in (0, before.get(version)) for version, count in state.requests.items()):
                state.answered = self._context.store.now()

    def removed(self) -> dict[str, int]:
        """Rows and files that were removed since the start, by kind."""
        files = self.collection.total
        counts = {"artifact": files.artifacts, "baseline": files.baselines, "blob": files.blobs}
        return {**counts, "bytes": files.bytes, **self.retention.total}
