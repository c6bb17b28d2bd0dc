"""Forgets old revisions, audit rows, events, operations and the trials of removed endpoints, a bounded number in a transaction. Other
writes come between.

Not here: how rows are dropped (``store.retention``), which revisions are kept for what they say (``domain.history``). Next:
``collection``, which removes the files that nobody references then.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import partial

from headgate.control.domain.history import notable
from headgate.control.domain.revision import Revision, read_revision
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EndpointState
from headgate.errors import StorageFailed
from headgate.store import RetentionLimits, Store, stamp

KEPT_EVENTS = 100_000
"""Events that a reader can still catch up with."""
KEPT_AUDIT = 100_000
"""Rows of the audit that stay whatever their age: a clock that jumps ahead drops none of them."""
KEPT_OPERATIONS = 1_000
"""Ended operations that can still be read."""
_MOST = 20
"""Transactions of one kind in a turn."""
_PAGE = 200
_PAUSE_SECONDS = 3600.0
_SHORT_PAUSE_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Retention:
    """The loop of one gateway. Belongs to one event loop."""

    def __init__(self, context: Context, endpoints: Mapping[str, EndpointState]) -> None:
        """``endpoints`` are all there are, now and later."""
        self._context = context
        self._endpoints = endpoints
        self.total: Counter[str] = Counter({"revision": 0, "audit": 0, "event": 0})
        """Rows that were dropped since the start, by kind."""

    async def turn(self) -> None:
        """Drops what is old, and waits for the next time."""
        more = await self.drop()
        await asyncio.sleep(_SHORT_PAUSE_SECONDS if more else _PAUSE_SECONDS)

    async def drop(self) -> bool:
        """Drops what is old, but not more than a turn may; whether there may be more."""
        context, settings = self._context, self._context.settings
        await context.write(lambda: context.store.prune_operations(KEPT_OPERATIONS))
        more = await context.write(context.store.drop_trials_of_removed)
        audit = RetentionLimits(KEPT_AUDIT, self._since(settings.audit_seconds))
        more |= await self._journal("event", RetentionLimits(KEPT_EVENTS))
        more |= await self._journal("audit", audit)
        kept = RetentionLimits(settings.revisions, self._since(settings.revision_seconds))
        # Asked for all at once: most endpoints have nothing that is old.
        names = await context.io(lambda: context.store.endpoints_to_drop_from(kept))
        for name in sorted(names & self._endpoints.keys()):
            state = self._endpoints[name]
            # What is damaged is looked at first.
            if state.broken is None and not state.damage:
                more |= await self._revisions(state, kept)
        return more

    def _since(self, seconds: int) -> str:
        return stamp(self._context.store.now() - timedelta(seconds=seconds))

    async def _journal(self, kind: str, kept: RetentionLimits) -> bool:
        drop = partial(self._context.store.drop_journal, "events" if kind == "event" else "audit", kept)
        for _ in range(_MOST):
            dropped = await self._context.write(drop)
            self._count(kind, dropped)
            if not dropped:
                return False
        return True

    async def _revisions(self, state: EndpointState, kept: RetentionLimits) -> bool:
        context = self._context
        store, name = context.store, state.name
        current = state.current
        numbers = (
            set()
            if current is None
            else await context.long(lambda: notable(current, _served(store, current)))
        )
        for _ in range(_MOST):
            dropped = await context.write(lambda: store.drop_revisions(name, kept, numbers))
            self._count("revision", dropped)
            if not dropped:
                return False
        return True

    def _count(self, kind: str, dropped: int) -> None:
        self.total[kind] += dropped
        if dropped:
            _log.info("dropped rows that are older than they are kept: %s %d", kind, dropped)


def _served(store: Store, current: Revision) -> Iterator[Revision]:
    """The revisions that were served before, the newest first, the present one included."""
    before: int | None = current.n + 1
    while page := store.revisions(current.endpoint, limit=_PAGE, before=before):
        for record in page:
            if record.status == "applied" and record.kind != "remove":
                try:
                    yield read_revision(record.body)
                except StorageFailed:
                    continue  # its damage is found and told elsewhere
        before = page[-1].n
