"""Operations: changes that outlive the request that asked for them.

Not here: when a request is answered with one (``admin``). Next: ``service``.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any, cast

from headgate.control.domain.problems import problem
from headgate.control.domain.results import OperationView, Result
from headgate.control.writes.context import Context
from headgate.errors import Draining, HeadgateError, Internal, NotFound, StorageFailed
from headgate.store import OperationRecord, keepable, seconds

MOST = 1000
"""Operations in memory."""
_log = logging.getLogger(__name__)


class Operations:
    """Follows writes that are answered later. Those that run are in memory: whoever asks is told, whatever the disk does."""

    def __init__(self, context: Context) -> None:
        """The context holds the store."""
        self._context = context
        self._following: set[asyncio.Task[None]] = set()
        self._known: dict[str, OperationRecord] = {}
        """Those that run, and those whose end is not written yet, oldest first."""

    async def adopt(self, work: asyncio.Task[Result], endpoint: str, kind: str) -> OperationView:
        """An operation that follows ``work`` to its end."""
        record = OperationRecord(secrets.token_hex(8), endpoint, kind, "running", self._context.now())
        self._make_room()
        self._known[record.id] = record
        # Emergency calls are among them: a disk that hangs must not keep their answer.
        with suppress(HeadgateError, TimeoutError):
            async with asyncio.timeout(self._context.settings.durable_seconds):
                await self._context.write(partial(self._context.store.put_operation, record))
        self._begin(self._follow(work, record))
        return _view(record)

    async def get(self, operation_id: str) -> OperationView:
        """One operation; :class:`NotFound`."""
        record = self._known.get(operation_id)
        if record is None:
            record = await self._context.io(lambda: self._context.store.operation(operation_id))
        if record is None:
            raise NotFound(f"there is no operation {operation_id!r}")
        return _view(record)

    async def list(self, limit: int) -> list[OperationView]:
        """Those that run and the newest that have ended, newest first."""
        before = [*self._known.values()]
        stored = await self._context.io(lambda: self._context.store.operations(limit=limit))
        records: dict[str, OperationRecord] = {}
        for record in (*before, *stored, *self._known.values()):
            # One may end while the store is read. An end that was told is never taken back.
            if record.status != "running" or record.id not in records:
                records[record.id] = record
        by_id = sorted(records.values(), key=lambda record: record.id)
        newest = sorted(by_id, key=lambda record: record.started, reverse=True)
        return [_view(record) for record in newest[:limit]]

    async def interrupted(self) -> None:
        """Ends what a stop left running. Nothing that is served depends on it: it is waited for, but not long."""
        stopped = Draining("the gateway stopped before the operation ended; read the endpoint and ask again")
        try:
            left = await self._context.io(self._context.store.running_operations)
        except StorageFailed:
            _log.exception("operations that a stop left running could not be ended")
            return
        for record in left:
            self._begin(self._keep(self._failed(record, stopped)))
        if self._following:
            await asyncio.wait(self._following, timeout=self._context.settings.durable_seconds)

    async def close(self, patience_seconds: float) -> None:
        """Waits for the ends to be written, but not longer."""
        if self._following:
            await asyncio.wait(self._following, timeout=patience_seconds)

    def _make_room(self) -> None:
        """Forgets the oldest ends that the store has not taken for a long time; what runs is bounded by ``runner``."""
        ended = [one for one, record in self._known.items() if record.status != "running"]
        for one in ended[: max(0, len(self._known) - MOST + 1)]:
            _log.error("the end of operation %s is forgotten: the store does not take it", one)
            del self._known[one]

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _follow(self, work: asyncio.Task[Result], record: OperationRecord) -> None:
        await self._keep(await self._end_of(work, record))

    async def _keep(self, ended: OperationRecord) -> None:
        """Writes the end of one, again and again until the store takes it."""
        self._known[ended.id] = ended
        while ended.id in self._known:
            try:
                await self._context.write(partial(self._context.store.put_operation, ended))
                self._known.pop(ended.id, None)
            except StorageFailed as error:
                _log.warning("the end of operation %s is not written yet: %s", ended.id, error.message)
                await asyncio.sleep(self._context.settings.retry_seconds)
            except Draining:
                return

    async def _end_of(self, work: asyncio.Task[Result], record: OperationRecord) -> OperationRecord:
        try:
            result = await work
        except HeadgateError as error:
            return self._failed(record, error)
        except Exception:
            _log.exception("operation %s failed by a defect", record.id)
            return self._failed(
                record, Internal("the operation failed by a defect of Headgate; its log says more")
            )
        return replace(record, status="done", finished=self._context.now(), result=dict(result))

    def _failed(self, record: OperationRecord, error: HeadgateError) -> OperationRecord:
        return replace(
            record, status="failed", finished=self._context.now(), problem=keepable(problem(error))
        )


def _view(record: OperationRecord) -> OperationView:
    finished = None if record.finished is None else seconds(record.finished)
    return cast(OperationView, {**asdict(record), "started": seconds(record.started), "finished": finished})
