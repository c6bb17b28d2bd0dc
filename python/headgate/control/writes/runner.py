"""How a call that changes something is run: in a task of its own, once for each idempotency key, with its row in the audit.

Not here: what the calls do. Next: ``service``.
"""

from __future__ import annotations

import asyncio
from typing import Any

from headgate.control.domain.calls import Call
from headgate.control.writes.audit import Recorder
from headgate.control.writes.context import Context
from headgate.control.writes.idempotency import Idempotency, R, Work
from headgate.errors import Draining, HeadgateError, from_code

MOST = 1000
"""Calls of one kind that are under way at most: ordinary ones, and emergencies. Those of the gateway itself are not counted."""


class Runner:
    """Runs the calls of one control plane. Belongs to one event loop."""

    def __init__(self, context: Context, audit_log: Recorder) -> None:
        """``audit_log`` takes the rows of calls that made no revision."""
        self._idempotency = Idempotency(context)
        self._audit_log = audit_log
        self._tasks: dict[asyncio.Task[Any], str] = {}
        """What is under way, and of which kind: ``ours``, ``emergency`` or ``ordinary``."""
        self._closed = False

    def refuse(self) -> None:
        """Takes no more calls."""
        self._closed = True

    async def ended(self, patience_seconds: float) -> None:
        """Waits for the calls that are under way, but not for longer than that."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience_seconds)

    async def run(
        self, call: Call, about: tuple[str, str | None], work: Work[R], patience_seconds: float | None = None
    ) -> R:
        """In a task of its own: a caller that goes away does not leave a write between its steps. ``about``: action and endpoint, if
        it is about one.
        """
        if self._closed:
            raise Draining("the gateway stops and takes no writes")
        kind = "ours" if call.is_ours else "ordinary" if patience_seconds is None else "emergency"
        if kind != "ours" and sum(one == kind for one in self._tasks.values()) >= MOST:
            # A caller that goes away leaves its call here: on a disk that hangs, each repetition would stay.
            raise from_code(
                "overloaded", f"{MOST} changes wait already, for the disk or for a load; try again"
            )
        task = asyncio.create_task(self._audited(call, about, work, patience_seconds))
        self._tasks[task] = kind
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    async def _audited(
        self, call: Call, about: tuple[str, str | None], work: Work[R], patience_seconds: float | None
    ) -> R:
        try:
            result = await self._idempotency.run(call, work, patience_seconds)
        except HeadgateError as error:
            await self._audit_log.refused(call, about, error)
            raise
        await self._audit_log.ended(call, about, result)
        return result

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled():
            # Its caller may have gone away, and the loop would complain of a failure that nobody asks for.
            task.exception()
