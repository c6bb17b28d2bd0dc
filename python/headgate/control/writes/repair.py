"""The start: what a stop left between the steps is completed or undone, then every endpoint is served again.

Not here: ordinary writes (``writer``). Next: ``reads``.

The newest proposed emergency revision is completed, because somebody wanted a model stopped; any other is marked failed, because
nobody was told that it took effect. Either way the served state equals an acknowledged revision or the next committed one. Serving
comes before writing: a full disk keeps nothing from being served.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial

from headgate.control.domain.calls import Call
from headgate.control.domain.revision import Revision, read_revision
from headgate.control.domain.spec import answering, loadable
from headgate.control.writes import swap
from headgate.control.writes.audit import audit_record
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EndpointState, Row
from headgate.control.writes.handover import Load, native_apply, no_answer
from headgate.control.writes.records import stored
from headgate.control.writes.swap import Wanted
from headgate.control.writes.tickets import Event
from headgate.errors import HeadgateError, StorageFailed
from headgate.store import (
    Commit,
    EndpointRecord,
    EventRecord,
    Proposal,
    RevisionRecord,
    RevisionStatus,
    keepable,
)

_log = logging.getLogger(__name__)
_COMPLETED = frozenset({"rollback", "abort", "block", "freeze"})
_COMPLETED_NOW = "completed at start"
_UNCONFIRMED = "the gateway stopped before this revision was confirmed"
_End = tuple[RevisionStatus, str]


class Repair:
    """Brings endpoints up, each on its own: one that is broken keeps no other from starting."""

    def __init__(self, context: Context) -> None:
        """The context holds store and data plane."""
        self._context = context
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(
        self, states: dict[str, EndpointState], damaged: Mapping[str, str], patience_seconds: float | None
    ) -> None:
        """Puts all endpoints of the store into ``states``, served or marked broken, the removed ones included without being served.

        Those that are ``damaged`` are not served, for the reason given: no older revision takes the place of one that was in force.
        Nothing else may write meanwhile.
        """
        pointers = await self._context.io(self._context.store.endpoints)
        for name, why in damaged.items():
            pointer = next(
                (one for one in pointers if one.name == name), EndpointRecord(name, None, 0, False, 0)
            )
            states[name] = EndpointState(name, tail=pointer.tail)
            await self._broken(states[name], pointer, why)
        pointers = [pointer for pointer in pointers if pointer.name not in damaged]
        for pointer in pointers:
            state = states[pointer.name] = EndpointState(pointer.name, tail=pointer.tail)
            self._tasks[pointer.name] = asyncio.create_task(self._endpoint(state, pointer))
        if not self._tasks:
            return
        try:
            await asyncio.wait(self._tasks.values(), timeout=patience_seconds)
            await asyncio.gather(*self._tasks.values())
        finally:
            for task in self._tasks.values():
                task.cancel()

    def loading(self) -> dict[str, asyncio.Task[None]]:
        """Those that are not over."""
        return {name: task for name, task in self._tasks.items() if not task.done()}

    async def _endpoint(self, state: EndpointState, pointer: EndpointRecord) -> None:
        try:
            left = await self._context.io(lambda: self._context.store.proposed(pointer.name))
            ends = await self._serve_newest(state, pointer, left)
            for record in left:
                await self._end(state, record, *ends.get(record.n, ("failed", _UNCONFIRMED)))
        except HeadgateError as error:
            await self._broken(state, pointer, error.message)
        except Exception as error:
            # A row that cannot be understood is this endpoint's trouble, not that of the others.
            _log.exception("%s does not start", pointer.name)
            await self._broken(state, pointer, f"what is stored of it cannot be read ({error!r})")

    async def _broken(self, state: EndpointState, pointer: EndpointRecord, why: str) -> None:
        state.broken = f"{pointer.name} does not start: {why}"
        await self._context.io(lambda: self._context.plane.mark_unavailable(pointer.name, why))
        await self._context.alarm(pointer.name, pointer.applied, state.broken)

    async def _serve_newest(
        self, state: EndpointState, pointer: EndpointRecord, left: list[RevisionRecord]
    ) -> dict[int, _End]:
        """Serves the newest emergency revision left, else the one applied; how that revision ends."""
        urgent = [
            record for record in left if record.kind in _COMPLETED and record.n > (pointer.applied or 0)
        ]
        applied = None if pointer.applied is None else await self._read(pointer.name, pointer.applied)
        ends: dict[int, _End] = {}
        if urgent:
            newest = urgent[-1]
            why = await self._serve_urgent(state, newest, applied)
            ends[newest.n] = ("applied", _COMPLETED_NOW) if why is None else ("failed", why)
            if why is None:
                return ends
        if applied is not None and pointer.removed:
            state.carried = read_revision(applied.body).traffic
        elif applied is not None:
            await self._serve(state, await self._revision_of(applied))
        return ends

    async def _serve_urgent(
        self, state: EndpointState, newest: RevisionRecord, applied: RevisionRecord | None
    ) -> str | None:
        """Why it cannot be completed. One that keeps a champion which does not load changes what is written, and is completed."""
        try:
            await self._serve(state, await self._revision_of(newest))
        except HeadgateError as error:
            why = error.message
        else:
            if state.broken is None or (applied is not None and _champion(applied) == _champion(newest)):
                return None
            why = state.broken
        state.broken = state.current = None
        state.omitted = {}
        return why

    async def _end(
        self, state: EndpointState, record: RevisionRecord, status: RevisionStatus, why: str
    ) -> None:
        """Ends what was proposed; what cannot be written now is written later, and what is served is served all the same."""
        why = keepable(why)
        data = {"kind": record.kind, "message": why}
        event = EventRecord(
            status, self._context.now(), record.endpoint, record.n, record.who, record.reason, data
        )
        call = Call(record.who, "", reason=record.reason)
        told = {**data, "ended_by": "headgate"}
        audit = audit_record(call, event.when, record.kind, (record.endpoint, record.n), (status, told))
        commit = Commit(record.endpoint, record.n, status, why, [event], audit)
        try:
            async with asyncio.timeout(self._context.settings.durable_seconds):
                self._context.publish(await self._context.write(lambda: self._context.store.commit(commit)))
        except (StorageFailed, TimeoutError):
            _log.exception("%s: revision %d could not be marked %s", record.endpoint, record.n, status)
            state.unsaved.append(Row(Proposal(record), commit, proposed=True, late=status == "applied"))

    async def _read(self, endpoint: str, n: int) -> RevisionRecord:
        record = await self._context.io(lambda: self._context.store.revision(endpoint, n))
        if record is None:
            raise HeadgateError(f"{endpoint}: revision {n} is applied, but the store has lost it")
        return record

    async def _revision_of(self, record: RevisionRecord) -> Revision:
        return await self._context.io(lambda: stored(self._context.store, record))

    async def _serve(self, state: EndpointState, revision: Revision) -> None:
        """Loads a revision; versions that do not load are left out one by one, with an alarm each."""
        state.current = revision
        omitted = await self._damaged(revision)
        state.damaged = set(omitted)
        while answering(revision.spec, revision.traffic, omitted) is not None:
            event = await self._apply(state, revision, omitted)
            if event["event"] == "applied":
                break
            version = event.get("version")
            if version is None or version in omitted:
                await self._mute(state, event["message"], omitted)
                break
            omitted[version] = event["message"]
        else:
            await self._mute(state, no_answer(revision, omitted).message, omitted)
        for alarm in state.alarms():
            await self._context.alarm(state.name, revision.n, alarm)

    async def _mute(self, state: EndpointState, why: str, omitted: dict[str, str]) -> None:
        """Nothing of an endpoint can answer: its calls are told why."""
        state.broken, state.omitted = f"{state.name} does not answer: {why}", omitted
        await self._context.io(lambda: self._context.plane.mark_unavailable(state.name, why))

    async def _damaged(self, revision: Revision) -> dict[str, str]:
        """Versions whose artifacts are not whole, with the reason."""
        omitted: dict[str, str] = {}
        for version in loadable(revision.spec, revision.traffic):
            entry = revision.spec.versions[version]
            if entry.constant is None:
                try:
                    await self._context.io(partial(self._context.paths.model, entry.digest))
                except HeadgateError as error:
                    omitted[version] = error.message
        return omitted

    async def _apply(self, state: EndpointState, revision: Revision, omitted: dict[str, str]) -> Event:
        context = self._context
        argument = await context.io(lambda: native_apply(revision, context.paths, Load(omitted=omitted)))
        return await swap.serve(context, state, Wanted(revision, omitted, argument))


def _champion(record: RevisionRecord) -> str:
    return read_revision(record.body).traffic.champion
