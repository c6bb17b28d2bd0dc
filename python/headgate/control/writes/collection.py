"""Collects artifacts, baselines and files of models that nobody references, a bounded number at a time.

Not here: what is referenced (``store.references``), how it is removed (``registry.collecting``). Next: ``retention``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EndpointState
from headgate.errors import StorageFailed
from headgate.registry import Collected, collect

_MOST = 100
"""Artifacts, baselines and blobs, each, that are removed at a time."""
_PAUSE_SECONDS = 300.0
_SHORT_PAUSE_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Collection:
    """The loop of one gateway. Belongs to one event loop."""

    def __init__(self, context: Context, endpoints: Mapping[str, EndpointState]) -> None:
        """``endpoints`` are all there are, now and later."""
        self._context = context
        self._endpoints = endpoints
        self._has_more = False
        self.total = Collected()
        """What was removed since the start."""

    async def turn(self) -> None:
        """Waits for its time and collects."""
        await asyncio.sleep(_SHORT_PAUSE_SECONDS if self._has_more else _PAUSE_SECONDS)
        self._has_more = False
        found = await self.collect()
        # A folder in use as a whole, by a backup or a model that is taken in, is free soon.
        self._has_more = found.more or found.busy

    async def collect(self) -> Collected:
        """Removes what nobody references. :class:`StorageFailed` while rows that may name something cannot be read."""
        damaged = [
            name
            for name, state in self._endpoints.items()
            if state.damage or (state.current is None and state.broken is not None)
        ]
        if damaged:
            raise StorageFailed(
                f"nothing is collected while the state of {', '.join(sorted(damaged))} is damaged: its rows may name what "
                "seems to be unreferenced"
            )
        store = self._context.store
        found = await self._context.long(lambda: collect(store.state, store.referenced_digests, _MOST))
        self.total += found
        if found.artifacts or found.baselines or found.blobs:
            _log.info(
                "collected: artifacts %d, baselines %d, files %d, bytes %d",
                found.artifacts,
                found.baselines,
                found.blobs,
                found.bytes,
            )
        return found
