"""Operations: changes that outlive the request that asked for them.

Not here: when a request is answered with one (``admin``). Next: ``service``.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import asdict, replace
from functools import partial
from typing import cast

from headgate.control.domain.problems import problem
from headgate.control.domain.results import OperationView, Result
from headgate.control.writes.context import Context
from headgate.errors import Draining, HeadgateError, Internal, NotFound, StorageFailed
from headgate.store import OperationRecord, seconds

_log = logging.getLogger(__name__)


class Operations:
    """Follows writes that are answered later."""

    def __init__(self, context: Context) -> None:
        """The context holds the store."""
        self._context = context
        self._following: set[asyncio.Task[None]] = set()

    async def adopt(self, work: asyncio.Task[Result], endpoint: str, kind: str) -> OperationView:
        """An operation that follows ``work`` to its end."""
        record = OperationRecord(secrets.token_hex(8), endpoint, kind, "running", self._context.now())
        await self._context.write(lambda: self._context.store.put_operation(record))
        follower = asyncio.create_task(self._follow(work, record))
        self._following.add(follower)
        follower.add_done_callback(self._following.discard)
        return _view(record)

    async def get(self, operation_id: str) -> OperationView:
        """One operation; :class:`NotFound`."""
        record = await self._context.io(lambda: self._context.store.operation(operation_id))
        if record is None:
            raise NotFound(f"there is no operation {operation_id!r}")
        return _view(record)

    async def list(self, limit: int) -> list[OperationView]:
        """Those that run and the newest that have ended, newest first."""
        records = await self._context.io(lambda: self._context.store.operations(limit=limit))
        return [_view(record) for record in records]

    async def interrupted(self) -> None:
        """Ends what a stop left running."""
        described = problem(
            Draining("the gateway stopped before the operation ended; read the endpoint and ask again")
        )
        try:
            for record in await self._context.io(self._context.store.running_operations):
                ended = replace(record, status="failed", finished=self._context.now(), problem=described)
                await self._context.write(partial(self._context.store.put_operation, ended))
        except StorageFailed:
            # The next start tries again; nothing that is served depends on it.
            _log.exception("operations that a stop left running could not be ended")

    async def close(self, patience_seconds: float) -> None:
        """Waits for the ends to be written, but not longer."""
        if self._following:
            await asyncio.wait(self._following, timeout=patience_seconds)

    async def _follow(self, work: asyncio.Task[Result], record: OperationRecord) -> None:
        try:
            result = await work
        except HeadgateError as error:
            ended = replace(record, status="failed", finished=self._context.now(), problem=problem(error))
        except Exception:
            _log.exception("operation %s failed by a defect", record.id)
            described = problem(Internal("the operation failed by a defect of Headgate; its log says more"))
            ended = replace(record, status="failed", finished=self._context.now(), problem=described)
        else:
            ended = replace(record, status="done", finished=self._context.now(), result=dict(result))
        try:
            await self._context.write(lambda: self._context.store.put_operation(ended))
        except StorageFailed:
            _log.exception("the end of operation %s could not be written", record.id)


def _view(record: OperationRecord) -> OperationView:
    finished = None if record.finished is None else seconds(record.finished)
    return cast(OperationView, {**asdict(record), "started": seconds(record.started), "finished": finished})
