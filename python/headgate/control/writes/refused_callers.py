"""Who was not let in: a table of addresses with a count for each minute, from which the audit gets one row each.

Not here: what is refused and why (``admin.guard``). Next: ``service``.

The table is bounded: in a minute with more addresses than it holds, the others share one row.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field

from headgate.control.writes.context import Context
from headgate.errors import HeadgateError
from headgate.store import AuditRecord, seconds

_log = logging.getLogger(__name__)
_ADDRESSES = 1_000
_OTHERS = "others"
_FREE = 5
"""Refusals of a minute that are answered at once: somebody has mistaken a token."""
_FIRST_PAUSE_SECONDS = 0.1
_WRITE_EVERY_SECONDS = 5.0
_TO_MINUTE = len("2027-03-01T03:12")


@dataclass
class _Refused:
    """One address in one minute; ``generation`` is its row, 0 before there is one."""

    address: str
    since: str
    until: str
    count: int = 0
    written: int = 0
    generation: int = 0
    codes: dict[str, int] = field(default_factory=dict)

    def record(self) -> AuditRecord:
        """Its row as of now."""
        detail = {
            "address": self.address,
            "count": self.count,
            "codes": dict(self.codes),
            "until": seconds(self.until),
        }
        return AuditRecord(
            self.since, "", "", "authenticate", None, None, "refused", "", detail, self.generation
        )


class RefusedCallers:
    """Counts refusals; belongs to one event loop."""

    def __init__(self, context: Context) -> None:
        """The context holds the store and the threads."""
        self._context = context
        self._table: dict[tuple[str, str], _Refused] = {}
        self._some = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    def count(self, address: str, error: HeadgateError) -> float:
        """One more refusal; how long its answer should wait. A caller that is let in is never looked up here."""
        now = self._context.now()
        minute = now[:_TO_MINUTE]
        self._forget(minute)
        if (address, minute) not in self._table and len(self._table) >= _ADDRESSES:
            address = _OTHERS
        entry = self._table.setdefault((address, minute), _Refused(address, now, now))
        entry.count += 1
        entry.until = now
        entry.codes[error.code] = entry.codes.get(error.code, 0) + 1
        if entry.count == 1:
            _log.warning("a caller at %s is refused: %s", address, error.message)
        self._some.set()
        over = entry.count - _FREE
        pause = _FIRST_PAUSE_SECONDS * 2.0 ** min(over - 1, 10) if over > 0 else 0.0
        return min(pause, self._context.settings.refused_pause_seconds)

    async def turn(self) -> None:
        """Waits for refusals and writes them, not more often than every few seconds."""
        await self._some.wait()
        self._some.clear()
        await self.flush()
        await asyncio.sleep(_WRITE_EVERY_SECONDS)

    async def flush(self) -> None:
        """Writes what was counted since; who is cancelled leaves the write to its end."""
        while self._writing is not None and not self._writing.done():
            # It does not know what was counted since it began.
            await asyncio.wait({self._writing})
        self._writing = asyncio.create_task(self._write())
        await asyncio.shield(self._writing)

    async def drain(self, patience_seconds: float) -> None:
        """As :meth:`flush`, for a while."""
        with suppress(TimeoutError, HeadgateError):
            async with asyncio.timeout(patience_seconds):
                await self.flush()

    async def _write(self) -> None:
        entries = [(entry, entry.count) for entry in self._table.values() if entry.count > entry.written]
        if not entries:
            return
        records = [entry.record() for entry, _ in entries]
        numbered = await self._context.behind(lambda: self._context.store.put_audit(records))
        for (entry, count), record in zip(entries, numbered, strict=True):
            entry.written, entry.generation = count, record.generation

    def _forget(self, minute: str) -> None:
        """Minutes that are over and written. While the store takes nothing, a full table stays as it is."""
        for key, entry in list(self._table.items()):
            if key[1] != minute and entry.written == entry.count:
                del self._table[key]
