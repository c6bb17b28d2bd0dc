"""What is written after it took effect: the revisions of emergency calls, in the order in which the calls came.

Not here: the calls (``emergency``). Next: ``service``.

A row waits here from the moment when its revision is handed to the data plane until it is on disk. An ordinary write of the
endpoint waits for it, because its own row comes after; so does the gateway's end, for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from headgate.control.writes.coalesced import Coalesced
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EndpointState, Row
from headgate.errors import HeadgateError, RevisionConflict, StorageFailed
from headgate.store import Commit

_log = logging.getLogger(__name__)


class WriteBehind:
    """Writes the rows that wait at each endpoint (``EndpointState.unsaved``), and tries again while the store does not take them."""

    def __init__(self, context: Context, endpoints: Mapping[str, EndpointState]) -> None:
        """``endpoints`` are all there are, now and later."""
        self._context = context
        self._endpoints = endpoints
        self._wake = asyncio.Event()
        self._writes: dict[str, Coalesced] = {}

    def wake(self) -> None:
        """Something waits to be written."""
        self._wake.set()

    async def turn(self) -> None:
        """Waits for something to write, or for the time to try again, and writes what can be written."""
        pause = self._context.settings.retry_seconds if any(self._waiting()) else None
        # Not wait_for: in Python 3.11 it may swallow that the loop is cancelled.
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wake.wait()
        self._wake.clear()
        await self.flush()

    async def flush(self) -> None:
        """Writes what waits, of all endpoints; then :class:`HeadgateError` when some of it could not be written."""
        failed: HeadgateError | None = None
        for state in list(self._waiting()):
            try:
                await self.write(state)
            except HeadgateError as error:
                failed = error
        if failed is not None:
            raise failed

    async def write(self, state: EndpointState) -> None:
        """Writes the rows of one endpoint, the oldest first. A row whose outcome is not known yet is written as proposed."""
        await self._writes.setdefault(state.name, Coalesced(partial(self._write, state))).run()

    async def _write(self, state: EndpointState) -> None:
        async with state.storing:
            while state.unsaved:
                row = state.unsaved[0]
                if row.commit is not None:
                    await self._end(state, row, row.commit)
                elif row.proposed:
                    return
                else:
                    await self._propose(row)

    async def _end(self, state: EndpointState, row: Row, commit: Commit) -> None:
        append = partial(self._context.store.append_ended, row.proposal, commit)
        events = await self._context.behind(append)
        state.unsaved.remove(row)
        if row.late:
            _log.info("%s: revision %d was written late", state.name, commit.n)
        if not row.told:
            self._context.publish(events)

    async def _propose(self, row: Row) -> None:
        # An attempt that was reported as failed may have reached the disk; the end of the row compares what lies there.
        with suppress(RevisionConflict):
            await self._context.behind(partial(self._context.store.propose, row.proposal))
        row.proposed = True

    async def settled(self, state: EndpointState) -> bool:
        """Whether what is served of an endpoint is on disk; waits for that, but not long."""
        if not state.is_durable():
            await self._try(state)
        return state.is_durable()

    async def _try(self, state: EndpointState) -> None:
        try:
            async with asyncio.timeout(self._context.settings.durable_seconds):
                await self.write(state)
        except (TimeoutError, HeadgateError) as error:
            _log.warning("%s: what came to be cannot be written: %r", state.name, error)
            self.wake()

    async def require(self, state: EndpointState) -> None:
        """:class:`StorageFailed` that says what is waited for, while rows of emergency calls are not written.

        Those of other endpoints count as well, once their calls were answered without them: the store does not answer then.
        """
        unwritten = [one for one in self._waiting() if one is state or any(row.late for row in one.unsaved)]
        await asyncio.gather(*(self._try(one) for one in unwritten))
        waiting = [row for row in state.unsaved if row.commit is not None] or [
            row for row in self._rows() if row.late
        ]
        if waiting:
            named = ", ".join(row.named() for row in waiting)
            raise StorageFailed(
                f"{named}: waits to be written to disk; nothing else is changed before it is there",
                detail={"waiting": [row.named() for row in waiting]},
            )

    async def drain(self, patience_seconds: float) -> list[str]:
        """Writes what waits until it is written or the time is over; names what is lost."""
        deadline = asyncio.get_running_loop().time() + patience_seconds
        try:
            async with asyncio.timeout_at(deadline):
                while any(self._waiting()):
                    try:
                        await self.flush()
                    except HeadgateError as error:
                        _log.warning("what emergency calls left could not be written: %s", error.message)
                        await asyncio.sleep(min(self._context.settings.retry_seconds, patience_seconds / 10))
        except TimeoutError:
            pass
        return [
            row.named() for row in self._rows() if row.commit is not None and row.commit.status == "applied"
        ]

    def _waiting(self) -> list[EndpointState]:
        return [
            state for state in self._endpoints.values() if any(row.can_be_written() for row in state.unsaved)
        ]

    def _rows(self) -> list[Row]:
        return [row for state in self._endpoints.values() for row in state.unsaved]
