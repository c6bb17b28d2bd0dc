"""The audit: every call that would change something leaves one row, whatever became of it.

Not here: the table (``store.journal``). Next: ``service``.

A change writes its row in its own transaction (``transition``, and ``start_recovery`` for what a stop left). Every other outcome is
recorded here afterwards, and so is a call that the admin port refuses itself; ``HeadgateError.audited`` keeps the two apart.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from headgate.control.domain.calls import Call
from headgate.control.domain.problems import status_of
from headgate.control.writes.coalesced import Coalesced
from headgate.control.writes.context import Context
from headgate.control.writes.idempotency import remembered
from headgate.errors import HeadgateError
from headgate.store import AuditRecord, IdempotencyRecord, keepable

_log = logging.getLogger(__name__)
_QUEUE = 10_000
"""Rows that wait for the store at most."""
_BATCH = 100
_MESSAGE = 2_000
"""Characters that are kept of the message of a refusal."""


def audit_record(
    call: Call,
    when: str,
    action: str,
    about: tuple[str | None, int | None],
    ended: tuple[str, dict[str, Any]],
) -> AuditRecord:
    """A row: ``about`` are endpoint and revision, ``ended`` the outcome and its detail. The caller's token is named in the detail.

    It is kept whatever it quotes: one that the store refuses would hold up all behind it.
    """
    endpoint, revision = about
    outcome, detail = ended
    told = {**detail, "token_id": call.token, "token_name": call.principal} if call.token else detail
    return AuditRecord(
        when,
        call.principal,
        call.role,
        action,
        endpoint,
        revision,
        outcome,
        keepable(call.reason),
        keepable(told),
    )


@dataclass(eq=False)
class _Entry:
    record: AuditRecord
    answer: IdempotencyRecord | None
    tried: asyncio.Event = field(default_factory=asyncio.Event)


class Recorder:
    """Writes rows that belong to no revision, in order; belongs to one event loop."""

    def __init__(self, context: Context) -> None:
        """The context holds the store and the threads."""
        self._context = context
        self._waiting: deque[_Entry] = deque()
        self._wake = asyncio.Event()
        self._writing = Coalesced(self._write)
        self.dropped = 0
        """Rows that found the queue full."""

    async def ended(self, call: Call, about: tuple[str, str | None], result: Mapping[str, Any]) -> None:
        """A call that control carried out: one that made no revision of its own is recorded here."""
        if call.dry_run:
            return
        replayed = result.get("replayed", False)
        if result["status"] == "applied" and not replayed:
            return
        if result["status"] == "unchanged" and call.is_ours:
            # A file that is as it was is no news.
            return
        outcome = "replayed" if replayed else result["status"]
        action, endpoint = about
        # What belongs to no endpoint has no revision, and is never answered before it is on disk.
        durable, revision = result.get("durable", True), result.get("revision")
        detail = {"kind": result["kind"], "message": result["message"], "durable": durable}
        record = audit_record(call, self._context.now(), action, (endpoint, revision), (outcome, detail))
        answer = remembered(self._context, call, result) if durable and not replayed else None
        await self.leave(record, answer, waits=durable)

    async def refused(self, call: Call, about: tuple[str, str | None], error: HeadgateError) -> None:
        """A call that changed nothing. One of the gateway itself is in its log, each time that it tries again."""
        if error.audited:
            return
        error.audited = True
        if call.dry_run or call.is_ours:
            return
        action, endpoint = about
        detail = {"code": error.code, "status": status_of(error.code), "message": error.message[:_MESSAGE]}
        record = audit_record(call, self._context.now(), action, (endpoint, None), ("refused", detail))
        await self.leave(record)

    async def leave(
        self, record: AuditRecord, answer: IdempotencyRecord | None = None, *, waits: bool = True
    ) -> None:
        """Puts a row into the queue, and waits until it was tried to write it, but not long. It is tried from here as well, because
        a stop ends the loop before the calls that are under way.
        """
        if len(self._waiting) >= _QUEUE:
            self.dropped += 1
            _log.error("the audit loses a row, %d so far: the store takes none: %s", self.dropped, record)
            return
        entry = _Entry(record, answer)
        self._waiting.append(entry)
        self._wake.set()
        if waits:
            try:
                # The loop tells of a store that does not take it, and the stop of rows that are lost.
                with suppress(TimeoutError, HeadgateError):
                    async with asyncio.timeout(self._context.settings.durable_seconds):
                        while not entry.tried.is_set():
                            await self.flush()
            except Exception:
                # The outcome of its call stands.
                _log.exception("a row of the audit could not be written because of a defect of Headgate")

    async def turn(self) -> None:
        """Waits for rows, or for the time to try again, and writes them."""
        pause = self._context.settings.retry_seconds if self._waiting else None
        # Not wait_for: in Python 3.11 it may swallow that the loop is cancelled.
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wake.wait()
        self._wake.clear()
        await self.flush()

    async def flush(self) -> None:
        """Writes what waits. Who is cancelled leaves the write to its end: no row is written twice."""
        await self._writing.run()

    async def drain(self, patience_seconds: float) -> list[str]:
        """Writes what waits until it is written or the time is over; says what is lost."""
        try:
            async with asyncio.timeout(patience_seconds):
                while self._waiting:
                    with suppress(HeadgateError):
                        await self.flush()
                    if self._waiting:
                        await asyncio.sleep(patience_seconds / 10)
        except TimeoutError:
            pass
        return [f"{len(self._waiting)} rows of the audit"] if self._waiting else []

    async def _write(self) -> None:
        while self._waiting:
            batch = list(self._waiting)[:_BATCH]
            records = [entry.record for entry in batch]
            answers = [entry.answer for entry in batch if entry.answer is not None]
            try:
                await self._context.behind(lambda: self._context.store.add_audit(records, answers))  # noqa: B023
                for entry in batch:
                    self._waiting.remove(entry)
            finally:
                for entry in batch:
                    entry.tried.set()
