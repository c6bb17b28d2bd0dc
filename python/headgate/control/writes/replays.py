"""Replays: captured requests that are put to a version. The data plane runs them; here they are begun, followed and recorded.

Not here: what is compared and how (``rust/server/src/replay``), HTTP (``admin``). Next: ``operations``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from headgate.control.domain.calls import Call
from headgate.control.domain.results import OperationView, Result
from headgate.control.writes.audit import Recorder, audit_record
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import Endpoints
from headgate.control.writes.idempotency import Idempotency, remembered
from headgate.control.writes.operations import Operations
from headgate.errors import Draining, NotFound, StorageFailed

_POLL_SECONDS = 0.25
"""How often the end of a replay is looked for."""
Report = dict[str, Any]


@dataclass(frozen=True)
class ReplayRequest:
    """What is replayed; ``compare`` is as a document's spec has it, times are in microseconds since 1970."""

    version: str
    against: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    max_requests: int | None = None
    compare: Mapping[str, Any] | None = None
    timeout_ms: int | None = None

    def encoded(self) -> bytes:
        """As the data plane reads it."""
        span = {"since_us": self.since_us, "until_us": self.until_us}
        written = {
            "version": self.version,
            "against": self.against,
            "span": {name: at for name, at in span.items() if at is not None},
            "max_requests": self.max_requests,
            "compare": dict(self.compare or {}),
            "timeout": self.timeout_ms,
        }
        return json.dumps({name: value for name, value in written.items() if value is not None}).encode()


class Replays:
    """The replays of a gateway since its start."""

    def __init__(
        self, context: Context, endpoints: Endpoints, operations: Operations, audit: Recorder
    ) -> None:
        """The context holds the data plane; ``endpoints`` are all there are, now and later."""
        self._context = context
        self._endpoints = endpoints
        self._idempotency = Idempotency(context)
        self._operations = operations
        self._audit = audit

    async def start(self, endpoint: str, request: ReplayRequest, call: Call) -> OperationView:
        """Begins one; the operation ends with it and has its report. :class:`PolicyInvalid` without captured requests that fit."""
        return (await self._begun(endpoint, request, call))[1]

    async def begin(self, endpoint: str, request: ReplayRequest, call: Call) -> int:
        """As :meth:`start`; the number of the replay."""
        return (await self._begun(endpoint, request, call))[0]

    async def _begun(self, endpoint: str, request: ReplayRequest, call: Call) -> tuple[int, OperationView]:
        plane = self._context.plane
        begun = _read(await self._context.long(lambda: plane.start_replay(endpoint, request.encoded())))
        detail = {"replay": begun["id"], "version": request.version, "against": begun["against"]["version"]}
        record = audit_record(call, self._context.now(), "replay", (endpoint, None), ("applied", detail))
        await self._audit.leave(record)
        follow = asyncio.create_task(self._followed(endpoint, begun["id"]))
        # Its operation has the outcome; one that a stop cuts off is nobody's news.
        follow.add_done_callback(lambda task: task.cancelled() or task.exception())
        return begun["id"], await self._operations.adopt(follow, endpoint, "replay")

    async def list(self, endpoint: str) -> list[Report]:
        """The newest first; :class:`ModelNotFound` of an endpoint that never was."""
        self._endpoints.ever(endpoint)
        plane = self._context.plane
        found = _read(await self._context.io(lambda: plane.replays(endpoint)))
        return cast(list[Report], found["replays"])

    async def get(self, endpoint: str, replay: int) -> Report:
        """One; :class:`NotFound`."""
        found = next((one for one in await self.list(endpoint) if one["id"] == replay), None)
        if found is None:
            raise NotFound(
                f"endpoint {endpoint!r} has no replay {replay} since the start of the gateway; operations keep the reports of earlier ones"
            )
        return found

    async def cancel(self, endpoint: str, replay: int, call: Call) -> Report:
        """Ends one; nothing happens if it has ended. ``replayed`` stands in an answer that an idempotency key gave back."""
        plane, about = self._context.plane, (endpoint, None)

        async def work() -> Result:
            report = _read(await self._context.io(lambda: plane.cancel_replay(endpoint, replay)))
            result = cast(Result, report)
            record = audit_record(
                call, self._context.now(), "replay_cancel", about, ("applied", {"replay": replay})
            )
            await self._audit.leave(record, remembered(self._context, call, result))
            return result

        result = await self._idempotency.run(call, work)
        if result.get("replayed"):
            record = audit_record(
                call, self._context.now(), "replay_cancel", about, ("replayed", {"replay": replay})
            )
            await self._audit.leave(record)
        return cast(Report, result)

    async def check(self, endpoint: str, request: ReplayRequest) -> None:
        """Raises what :meth:`begin` would raise now. Files are looked at, and no version is asked."""
        plane, nothing = self._context.plane, replace(request, max_requests=0)
        begun = _read(await self._context.long(lambda: plane.start_replay(endpoint, nothing.encoded())))
        await self.end(endpoint, begun["id"])

    async def end(self, endpoint: str, replay: int) -> None:
        """Ends one that nobody asked for by a call; nothing happens if it has ended, or is not known any more."""
        plane = self._context.plane
        with contextlib.suppress(NotFound):
            await asyncio.to_thread(lambda: plane.cancel_replay(endpoint, replay))

    async def _followed(self, endpoint: str, replay: int) -> Result:
        """The report at the end. It is an operation's result, which is kept as it is."""
        while (report := await self.get(endpoint, replay))["state"] == "running":
            await self._pause()
        if report["state"] == "failed":
            raise StorageFailed(f"the replay ended: {report['error']}")
        return cast(Result, report)

    async def _pause(self) -> None:
        if self._context.is_stopping():
            raise Draining("the gateway stopped before the replay ended")
        await asyncio.sleep(_POLL_SECONDS)


def _read(answer: bytes) -> Report:
    return cast(Report, json.loads(answer))
